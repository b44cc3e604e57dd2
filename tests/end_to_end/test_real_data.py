"""Every real data set, as a small copy in its layout: prepared, checked and trained on."""

import json
import re
import shutil
import time
from dataclasses import dataclass
from typing import Any

import copies
import pytest
from stored import manifests, numbers

SMALL = {
    "protocol": "class_incremental",
    "methods": ["finetune"],
    "seeds": [0],
    "set": {"epochs": 1, "batch_size": 16, "backbone": {"name": "mlp", "hidden": [16]}},
}


@dataclass(frozen=True)
class Copy:
    """A data set, how many images its copy has, and how many tasks a trial cuts it into."""

    name: str
    write: Any
    images: str
    tasks: int = 2
    distribution: str = "regular"


COPIES = {
    "cifar10": Copy("cifar10", copies.cifar10, "100 training and 20 test images of 3x32x32"),
    "cifar100": Copy("cifar100", copies.cifar100, "300 training and 100 test images of 3x32x32"),
    "fashion_mnist": Copy(
        "fashion_mnist", copies.fashion_mnist, "40 training and 20 test images of 1x28x28"
    ),
    "tiny_imagenet": Copy(
        "tiny_imagenet", copies.tiny_imagenet, "16 training and 4 test images of 3x64x64"
    ),
    "tiny_imagenet, shards": Copy(
        "tiny_imagenet", copies.tiny_imagenet_shards, "80 training and 80 test images of 3x64x64"
    ),
    "clear100": Copy(
        "clear100",
        copies.clear100,
        "18 training and 12 test images of 3x16x16",
        distribution="domains",
    ),
    "imagenet100": Copy(
        "imagenet100", copies.imagenet100, "32 training and 12 test images of 3x16x16"
    ),
    "imagenet_lt": Copy(
        "imagenet_lt", copies.imagenet_lt, "20 training and 12 test images of 3x16x16"
    ),
    "core50": Copy("core50", copies.core50, "500 training and 50 test images of 3x16x16", 10),
    "core50, array": Copy(
        "core50", copies.core50_array, "500 training and 50 test images of 3x16x16", 10
    ),
    "medmnist40": Copy(
        "medmnist40", copies.medmnist40, "160 training and 80 test images of 3x28x28", 10
    ),
}


def options(settings):
    """`--set` for each setting of a data set."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def trial_suite(suite, entry, root, **keys):
    return suite(**{**SMALL, "datasets": [entry], "data_root": str(root), "num_tasks": [2], **keys})


@pytest.mark.parametrize("which", COPIES)
def test_a_copy_is_prepared_checked_and_trained_on(which, call, run, suite, store, tmp_path):
    chosen, root = COPIES[which], tmp_path / "data"
    settings = chosen.write(root)
    prepared = call("data", "prepare", chosen.name, "--root", root, *options(settings))
    assert (prepared.status, prepared.err) == (0, "")
    assert f"{chosen.name}: {chosen.images}" in prepared.out
    checked = call("data", "check", chosen.name, "--root", root, *options(settings))
    assert checked.status == 0
    assert "all sums right" in checked.out
    assert re.search(rf"{chosen.name}: .* images in \d+ classes: ok, ", checked.out)
    entry = {"name": chosen.name, "set": settings}
    keys = {"num_tasks": [chosen.tasks], "distribution": [chosen.distribution]}
    finished = run(trial_suite(suite, entry, root, **keys))
    assert finished.status == 0, finished.err
    assert "1 done" in finished.out
    assert numbers(store)


def test_images_to_measure_with_are_no_training_data(call, run, suite, store, tmp_path):
    root = tmp_path / "data"
    own = copies.imagenet100(root)
    corrupted, outside = copies.imagenet_c(root), copies.imagenet_o(root)
    for name, settings, count in (("imagenet_c", corrupted, 48), ("imagenet_o", outside, 12)):
        ready = call("data", "prepare", name, "--root", root, *options(settings))
        assert f"{name}: 0 training and {count} test images of 3x16x16" in ready.out
        assert call("data", "check", name, "--root", root, *options(settings)).status == 0
        refused = run(trial_suite(suite, {"name": name, "set": settings}, root))
        assert refused.status == 2
        assert f"data set {name} has no training images" in refused.err
    chosen = {key: corrupted[key] for key in ("corruptions", "severities")}
    evaluators = [
        "classifier",
        {"name": "corruption", "source": "imagenet_c", "when": "last", **chosen},
        {"name": "ood", "dataset": {"name": "imagenet_o", **outside}, "when": "last"},
    ]
    measured = {**SMALL["set"], "evaluators": evaluators}
    finished = run(trial_suite(suite, {"name": "imagenet100", "set": own}, root, set=measured))
    assert finished.status == 0, finished.err
    (rows,) = numbers(store).values()
    metrics = {row["metric"] for row in rows}
    assert {"mean_corruption_accuracy", "auroc"} <= metrics
    conditions = {row["condition"] for row in rows if row["evaluator"] == "corruption"}
    assert {"shot_noise/1", "shot_noise/2", "fog/1", "fog/2"} <= conditions


def test_a_corrupt_picture_stops_a_run_before_training(run, suite, store, tmp_path):
    root = tmp_path / "data"
    settings = copies.imagenet100(root)
    broken = root / "imagenet" / "train" / "n01" / "n01_3.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    path = trial_suite(suite, {"name": "imagenet100", "set": settings}, root)
    stopped = run(path)
    assert stopped.status == 2
    assert "imagenet100: 1 images cannot be used" in stopped.err
    assert f"{broken}: no readable image" in stopped.err
    assert "`skip_corrupt: true`" in stopped.err
    assert not list(store.glob("trials/*"))
    assert run(path, "--set", "imagenet100.skip_corrupt=true").status == 0
    (manifest,) = manifests(store).values()
    assert manifest["data"]["skipped"] == 1
    assert sorted(manifest["class_names"]) == sorted(copies.WNIDS)


def test_a_suite_prepares_what_it_reads(call, run, suite, store, tmp_path):
    root = tmp_path / "data"
    settings = copies.imagenet100(root)
    path = trial_suite(suite, {"name": "imagenet100", "set": settings}, root)
    assert call("data", "prepare", path).status == 0
    shutil.rmtree(root / "imagenet")
    assert run(path).status == 0
    (manifest,) = (root / "prepared").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["class_names"] == list(copies.WNIDS)


def test_what_there_is_is_listed(call, tmp_path):
    root = tmp_path / "data"
    settings = copies.imagenet100(root)
    call("data", "prepare", "imagenet100", "--root", root, *options(settings))
    listed = call("data", "list", "--root", root).out
    assert "prepared: 32 + 12 of" in " ".join(listed.split())
    assert "comes with the project" in " ".join(listed.split())


def test_differences_from_the_published_set_are_named(call, tmp_path):
    root = tmp_path / "data"
    copies.cifar10(root)
    checked = call("data", "check", "cifar10", "--root", root)
    assert checked.status == 0
    assert "not prepared yet: run `data prepare cifar10`" in checked.out
    assert "train: 100 images; published: 50,000; 10 classes differ" in checked.out
    assert "test_batch: MD5 " in checked.out
    assert "cifar-10-python.tar.gz: not here; MD5 published: c58f3010" in checked.out
    assert "a reduced or another copy" in checked.out


def test_a_damaged_prepared_file_is_found_by_a_check(call, tmp_path):
    root = tmp_path / "data"
    copies.cifar10(root)
    call("data", "prepare", "cifar10", "--root", root)
    (images,) = (root / "prepared").glob("cifar10-*/train.npy")
    with images.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\x00\xff\x00")
    checked = call("data", "check", "cifar10", "--root", root)
    assert checked.status == 2
    assert f"{images}: damaged" in checked.err


def test_a_download_that_cannot_be_had_is_one_message(begin_cold, tmp_path):
    start = time.monotonic()
    proxy = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    finished = begin_cold(
        "data", "prepare", "cifar10", "--download", "--root", tmp_path, **proxy
    ).finish(60)
    assert finished.status == 2
    assert time.monotonic() - start < 30
    assert len(finished.err.strip().splitlines()) == 1
    assert "data prepare cifar10 --download: " in finished.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "imagnet100"], "did you mean 'imagenet100'?"),
        (["prepare", "imagenet100", "--set", "sise=3"], "'sise'; did you mean 'size'?"),
        (["check", "cifar100"], "cifar100 was not found. Looked in:"),
        (["prepare", "cifar100", "--root", "/dev/null/x"], "cifar100 was not found"),
        (["prepare"], "which data set?"),
    ],
)
def test_a_mistake_is_one_message(call, arguments, message, tmp_path):
    root = [] if "--root" in arguments else ["--root", tmp_path]
    finished = call("data", *arguments, *root)
    assert finished.status == 2
    assert message in finished.err
    assert "Traceback" not in finished.err
