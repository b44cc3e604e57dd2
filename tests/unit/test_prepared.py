"""A set is prepared once, for whoever asks and as often as they ask, and never half."""

import errno
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import eventually, forked, prepared, reference, spoil, workers_of, write_picture
from PIL import Image

from harness.data import prepared as store
from harness.data.base import DataError, Traits
from harness.data.decoder import Shape
from harness.data.prepared import Request, damaged, intact, ready
from harness.data.prepared_files import MANIFEST, Manifest
from harness.data.source import (
    Contents,
    Picture,
    SplitSource,
    Stored,
    first_pictures,
    picture_names,
)

TRAITS = Traits(mean=(0.5,) * 3, std=(0.2,) * 3)
CLASSES = ("cat", "dog", "owl")
COUNTS = {"train": 130, "test": 6}


@dataclass(frozen=True)
class Config:
    size: int = 8
    skip_corrupt: bool = False


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A set in folders of its splits and classes, which nobody changes."""
    folder = tmp_path_factory.mktemp("originals")
    for split, count in COUNTS.items():
        for number in range(count):
            write_picture(folder / split / CLASSES[number % 3] / f"{number:03}.jpg", number)
    return folder


@pytest.fixture
def root(originals, tmp_path):
    """A data root with that set, whose folders have not changed for long."""
    shutil.copytree(originals, tmp_path / "toy")
    age(tmp_path / "toy")
    return tmp_path


def age(folder):
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (1e9, 1e9))


def request(root, **settings):
    config = Config(**settings)

    def find():
        if not (root / "toy").is_dir():
            raise DataError("toy was not found")
        return root / "toy"

    return Request("toy", config, root, find, lambda folder: scan(folder, config))


def scan(folder, config):
    splits = [split_of(folder / name, Shape(config.size, "exact")) for name in COUNTS]
    return Contents(*splits, CLASSES, watched=(folder / "train", folder / "test"))


def split_of(folder, shape):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    pictures = [
        Picture(name, CLASSES.index(name[:3]), int(name[4:7]) % 2, int(name[4:7])) for name in names
    ]
    return SplitSource.of_pictures(folder, pictures, shape)


def load(root, **settings):
    return store.prepared(request(root, **settings), TRAITS)


def folder_of(root, **settings):
    return request(root, **settings).folder


def content(root):
    """Every file of the prepared sets by its name, and what is in it."""
    files = (path for path in (root / "prepared").rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in files
        if path.suffix != ".lock"
    }


def same(one, other):
    return all(
        torch.equal(getattr(getattr(one, split), name), getattr(getattr(other, split), name))
        for split in ("train", "test")
        for name in ("x", "y", "domain", "session")
    )


def unlisted(root, **settings):
    """A request that must do without the list of pictures."""
    return replace(request(root, **settings), scan=None)


def test_a_set_has_its_pictures_and_what_is_known_of_them_in_their_order(root):
    dataset = load(root)
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        paths = sorted((root / "toy" / name).rglob("*.jpg"))
        expected = torch.stack([reference(path, 8, exact=True) for path in paths])
        assert torch.equal(split.x, expected)
        assert split.y.tolist() == [CLASSES.index(path.parent.name) for path in paths]
        assert split.session.tolist() == [int(path.stem) for path in paths]
        assert torch.equal(split.domain, split.session % 2)
    assert (dataset.name, dataset.class_names, dataset.traits) == ("toy", CLASSES, TRAITS)
    assert dataset.origin["skipped"] == 0
    assert len(dataset.origin["checksum"]) == 64


def test_a_prepared_set_needs_its_pictures_no_more(root):
    before = load(root)
    shutil.rmtree(root / "toy")
    assert same(load(root), before)
    assert ready(request(root), rescan=True) == Manifest.read(folder_of(root))


def test_what_is_written_to_the_images_does_not_reach_the_file(root):
    before = content_of(load(root))
    load(root).train.x.fill_(7)
    assert content_of(load(root)) == before


def content_of(dataset):
    return [split.x.numpy().tobytes() for split in (dataset.train, dataset.test)]


def test_settings_have_folders_of_their_own_but_skipping_is_none(root):
    load(root)
    load(root, size=9)
    load(root, skip_corrupt=True)
    assert len(prepared(root)) == 2
    assert folder_of(root) == folder_of(root, skip_corrupt=True)


def test_a_set_that_only_tests_has_no_training_images(root):
    def scan_test(folder):
        return Contents(None, split_of(folder / "test", Shape(8, "exact")), CLASSES)

    dataset = store.prepared(replace(request(root), scan=scan_test), TRAITS)
    assert (len(dataset.train), len(dataset.test)) == (0, 6)
    assert dataset.image_shape == (3, 8, 8)


def test_pictures_are_not_listed_while_their_folders_keep_their_times(root):
    assert ready(request(root)) == ready(unlisted(root))


def test_a_touched_folder_with_the_same_pictures_is_listed_once_and_not_decoded(root):
    before = load(root)
    for path in (root / "toy").rglob("*.jpg"):
        spoil(path)
    os.utime(root / "toy" / "train" / "dog", (2e9, 1.1e9))
    assert same(load(root), before)
    assert ready(unlisted(root)).watched["train/dog"] == 1.1e18


def test_what_changes_while_pictures_are_listed_is_listed_next_time(root):
    def listed_too_early(folder):
        contents = scan(folder, Config())
        write_picture(folder / "train" / "cat" / "500.jpg", 500)
        return contents

    early = ready(replace(request(root), scan=listed_too_early))
    assert early.splits["train"].shape[0] == 130
    assert ready(request(root)).splits["train"].shape[0] == 131


def test_a_new_file_that_disappears_again_is_noticed(root):
    def scan_both(folder):
        (root / "list.txt").write_text("made while pictures are listed")
        return replace(scan(folder, Config()), watched=(root / "list.txt",))

    wanted = replace(request(root), scan=scan_both)
    ready(wanted)
    (root / "list.txt").unlink()
    ready(wanted)
    assert (root / "list.txt").exists()  # as they were listed again


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "replaced"])
def test_other_pictures_make_the_set_anew(root, change):
    before = load(root)
    pixels = content_of(before)
    cats = root / "toy" / "train" / "cat"
    if change == "added":
        write_picture(cats / "500.jpg", 500)
    elif change == "removed":
        (cats / "003.jpg").unlink()
    elif change == "renamed":
        (cats / "003.jpg").rename(cats / "501.jpg")
    else:
        write_picture(root / "new.jpg", 7)
        (root / "new.jpg").replace(cats / "003.jpg")
    after = load(root)
    paths = sorted((root / "toy" / "train").rglob("*.jpg"))
    assert torch.equal(after.train.x, torch.stack([reference(p, 8, exact=True) for p in paths]))
    assert after.origin["checksum"] != before.origin["checksum"]
    assert prepared(root) == [folder_of(root).name]
    assert content_of(before) == pixels  # a trial that has the old one still reads it


def test_a_picture_overwritten_in_place_is_seen_when_the_list_is_asked_for(root):
    first = ready(request(root))
    write_picture(root / "toy" / "train" / "cat" / "003.jpg", 7)
    assert ready(request(root)) == first
    assert ready(request(root), rescan=True).checksum != first.checksum


def test_a_file_outside_the_source_is_watched_too(root):
    def scan_both(folder):
        return replace(scan(folder, Config()), watched=(root / "list.txt",))

    wanted = replace(request(root), scan=scan_both)
    (root / "list.txt").write_text("which pictures to take")
    os.utime(root / "list.txt", (1e9, 1e9))
    ready(wanted)
    assert ready(replace(wanted, scan=None)).watched[str(root / "list.txt")] == 1e18
    os.utime(root / "list.txt", (1e9, 1.2e9))
    assert ready(wanted).watched[str(root / "list.txt")] == 1.2e18


def test_a_folder_that_cannot_be_listed_is_named(root):
    def refused(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "train"))

    with pytest.raises(DataError, match=r"toy/train: cannot be read \(Permission denied\)"):
        ready(replace(request(root), scan=refused))


def corrupt(root):
    """Damage four pictures; what is left of them, by their paths."""
    toy = root / "toy"
    damaged = {
        toy / "test" / "owl" / "002.jpg": b"",
        toy / "train" / "cat" / "000.jpg": b"<html>404</html>",
        toy / "train" / "dog" / "100.jpg": (toy / "train" / "dog" / "100.jpg").read_bytes()[:250],
        toy / "train" / "owl" / "128.jpg": b"x" * 500,
    }
    for path, left in damaged.items():
        path.write_bytes(left)
    return damaged


def test_corrupt_pictures_are_all_named_and_leave_nothing_to_trust(root):
    damaged = corrupt(root)
    for _ in range(2):
        with pytest.raises(DataError, match="toy: 4 images cannot be used") as error:
            load(root)
        lines = str(error.value).splitlines()
        assert {line.partition(":")[0].strip() for line in lines[1:5]} == set(map(str, damaged))
        assert lines[5].startswith("Fetch them again, or leave them out")
        assert prepared(root) == []
    shutil.rmtree(root / "toy")
    with pytest.raises(DataError, match="toy was not found"):
        load(root)


def test_of_many_corrupt_pictures_some_are_named_and_all_are_counted(root):
    for path in (root / "toy" / "train" / "dog").iterdir():
        spoil(path)
    with pytest.raises(DataError, match=r"43 images cannot be used:(\n  .*){5}\n  and 38 more"):
        load(root)


@pytest.mark.parametrize("refused_before", [False, True])
def test_skipping_leaves_out_exactly_the_corrupt_pictures(root, refused_before):
    whole = {split: sorted((root / "toy" / split).rglob("*.jpg")) for split in COUNTS}
    expected = {path: reference(path, 8, exact=True) for paths in whole.values() for path in paths}
    damaged_paths = corrupt(root)
    if refused_before:
        with pytest.raises(DataError, match="4 images cannot be used"):
            load(root)
    dataset = load(root, skip_corrupt=True)
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        left = [path for path in whole[name] if path not in damaged_paths]
        assert torch.equal(split.x, torch.stack([expected[path] for path in left]))
        assert split.y.tolist() == [CLASSES.index(path.parent.name) for path in left]
        assert split.session.tolist() == [int(path.stem) for path in left]
        assert split.domain.tolist() == [int(path.stem) % 2 for path in left]
    manifest = intact(folder_of(root))
    assert manifest.splits["train"].per_class == (43, 42, 42)
    assert manifest.splits["test"].per_class == (2, 2, 1)
    assert {root / "toy" / path for path in manifest.skipped} == set(damaged_paths)
    assert dataset.origin["skipped"] == 4
    assert damaged(folder_of(root), manifest) == []


def test_what_was_skipped_is_refused_by_those_who_do_not_skip(root):
    path = next(iter(corrupt(root)))
    load(root, skip_corrupt=True)
    for _ in range(2):
        with pytest.raises(DataError, match=f"toy: 4 images cannot be used:\n(.*\n)*  {path}: "):
            load(root)
    shutil.rmtree(root / "toy")
    with pytest.raises(DataError, match="toy: 4 images cannot be used"):
        load(root)
    assert len(load(root, skip_corrupt=True).test) == 5


@pytest.mark.parametrize("skip", [False, True])
def test_pictures_fetched_again_are_no_longer_left_out(root, originals, skip):
    path = Path("train", "owl", "128.jpg")
    spoil(root / "toy" / path)  # of the size it should have
    load(root, skip_corrupt=True)
    (root / "toy" / path).write_bytes((originals / path).read_bytes())
    dataset = load(root, skip_corrupt=skip)
    assert len(dataset.train) == 130
    assert dataset.origin["skipped"] == 0


def test_a_class_that_loses_all_its_pictures_is_refused(root, originals):
    for path in (root / "toy" / "test" / "dog").iterdir():
        spoil(path)
    for _ in range(2):
        with pytest.raises(DataError, match="toy: no image of class 'dog' is left in test"):
            load(root, skip_corrupt=True)
        assert prepared(root) == []
    shutil.copytree(originals / "test", root / "toy" / "test", dirs_exist_ok=True)
    assert len(load(root).test) == 6


def damages():
    """Accidents to a folder of a prepared set."""

    def rewrite(name, change):
        def accident(folder):
            (folder / name).write_bytes(change((folder / name).read_bytes()))

        return accident

    def manifest(change):
        def changed(content):
            manifest = json.loads(content)
            change(manifest)
            return json.dumps(manifest).encode()

        return rewrite(MANIFEST, changed)

    return {
        "no manifest": lambda folder: (folder / MANIFEST).unlink(),
        "empty manifest": rewrite(MANIFEST, lambda _: b""),
        "half a manifest": rewrite(MANIFEST, lambda content: content[: len(content) // 2]),
        "a list for a manifest": rewrite(MANIFEST, lambda _: b"[1, 2]"),
        "binary manifest": rewrite(MANIFEST, lambda content: b"\xff\x00" + content),
        "older version": manifest(lambda content: content.update(version=0)),
        "version in words": manifest(lambda content: content.update(version="one")),
        "no splits": manifest(lambda content: content.pop("splits")),
        "another count": manifest(lambda content: content["splits"]["train"]["shape"].reverse()),
        "no images": lambda folder: (folder / "train.npy").unlink(),
        "empty images": rewrite("test.npy", lambda _: b""),
        "truncated images": rewrite("train.npy", lambda content: content[:-1]),
        "a page of images": rewrite("train.npy", lambda _: b"<html>"),
        "other images": rewrite("train.npy", lambda content: content.replace(b"|u1", b"|i1", 1)),
        "no labels": lambda folder: (folder / "train.labels.npy").unlink(),
        "other labels": rewrite("train.labels.npy", lambda content: content[:-8] + content[:8]),
        "empty labels": rewrite("test.labels.npy", lambda _: b""),
        "no domains": lambda folder: (folder / "test.domain.npy").unlink(),
        "truncated sessions": rewrite("train.session.npy", lambda content: content[:-8]),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_set_is_made_again_or_refused_if_its_pictures_are_gone(root, damage):
    load(root)
    before = content(root)
    damages()[damage](folder_of(root))
    assert content(root) != before
    load(root)
    assert content(root) == before
    damages()[damage](folder_of(root))
    shutil.rmtree(root / "toy")
    with pytest.raises(DataError, match="damaged, or made by another version") as error:
        load(root)
    assert str(error.value).startswith(f"{folder_of(root)}: ")
    assert str(error.value).endswith("its source is needed. toy was not found")


def test_damaged_pixels_are_found_by_their_sums(root):
    manifest = ready(request(root))
    path = folder_of(root) / "train.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert intact(folder_of(root)) == manifest
    assert damaged(folder_of(root), manifest) == [str(path)]


def test_a_kill_in_the_middle_costs_only_the_blocks_in_work(root, originals, monkeypatch):
    load(root)
    before = content(root)
    shutil.rmtree(root / "prepared")
    stuck = root / "toy" / "train" / "owl" / "128.jpg"  # in the last of three blocks
    whole = stuck.read_bytes()
    stuck.unlink()
    os.mkfifo(stuck)
    process = forked(load, root)
    journal = folder_of(root).with_suffix(".part") / "train.blocks"
    eventually(lambda: journal.exists() and journal.read_text().count("}}") == 2)
    process.kill()
    process.join()
    assert prepared(root) == []
    stuck.unlink()
    stuck.write_bytes(whole)
    age(root / "toy")
    for path in sorted((root / "toy" / "train").rglob("*.jpg"))[:128]:
        spoil(path)
    age(root / "toy")
    load(root)
    assert content(root) == before


@pytest.mark.parametrize("at", ["before", "between", "after"])
def test_a_kill_at_the_renames_leaves_the_old_set_or_is_repaired(root, at):
    load(root)
    write_picture(root / "toy" / "train" / "cat" / "500.jpg", 500)
    process = forked(_killed_at_the_renames, root, at)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert folder_of(root).exists() == (at != "between")
    for path in (root / "toy").rglob("*.jpg"):
        spoil(path)  # all have been decoded
    assert len(load(root).train) == 131
    assert ready(request(root), rescan=True).splits["train"].shape[0] == 131
    assert prepared(root) == [folder_of(root).name]


def _killed_at_the_renames(root, at):
    folder, rename = str(folder_of(root)), os.replace

    def killing(source, target):
        source, target = str(source), str(target)
        first, second = source == folder, target == folder
        if (first and at == "before") or (second and at == "between"):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
        if second and at == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killing
    load(root)


def test_a_place_that_cannot_be_written_is_named(root):
    (root / "prepared").write_text("a file stands in the way")
    with pytest.raises(DataError, match="prepared: cannot be written"):
        load(root)


def test_a_set_that_cannot_be_written_can_be_used_if_the_pictures_are_the_same(root):
    before = load(root)
    lock = folder_of(root).with_name(f"{folder_of(root).name}.lock")
    lock.unlink()
    lock.mkdir()  # as if the disk could only be read: even root cannot open it
    os.utime(root / "toy" / "train", (1e9, 1.1e9))
    assert same(load(root), before)
    write_picture(root / "toy" / "train" / "cat" / "500.jpg", 500)
    with pytest.raises(DataError, match=r"\.lock: cannot be written"):
        load(root)


def test_too_little_space_is_told_before_anything_is_written(root, monkeypatch):
    usage = shutil.disk_usage(root)
    for free, refused in ((136 * 192 - 1, True), (136 * 192, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        if refused:
            with pytest.raises(
                DataError, match=r"0\.0 GB are needed, but 0\.0 GB are free; ENGRAM"
            ):
                load(root)
            assert not list((root / "prepared").rglob("*.npy"))
        else:
            load(root)


def test_space_that_an_earlier_run_has_taken_is_not_needed_again(root, monkeypatch):
    corrupt(root)
    with pytest.raises(DataError, match="cannot be used"):
        load(root)
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert len(load(root, skip_corrupt=True).train) == 127


@pytest.mark.parametrize("limit", [2_000, 20_000])
def test_a_file_that_cannot_grow_is_told_in_one_message_and_made_later(root, limit):
    process = forked(_with_little_space, root, limit)
    process.join()
    assert process.exitcode == 100
    assert prepared(root) == []
    load(root)
    assert damaged(folder_of(root), intact(folder_of(root))) == []


def _with_little_space(root, limit):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        load(root)
    except DataError as error:
        os._exit(100 if "cannot be written (File too large)" in str(error) else 1)


def test_of_several_at_once_one_prepares_and_the_others_wait(tmp_path):
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    (tmp_path / "origin").write_bytes(b"many images")
    reads = []

    def read():
        reads.append(1)
        time.sleep(0.1)
        yield np.arange(2), images.numpy()

    def scan(folder):
        stored = Stored([tmp_path / "origin"], (3, 8, 8), 2, read)
        return Contents(None, SplitSource(stored, torch.tensor([0, 1])), ("a", "b"))

    wanted = Request("toy", Config(), tmp_path, lambda: tmp_path, scan)
    # The lock is held by an open file, so that threads exclude each other as processes do.
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: store.prepared(wanted, TRAITS), range(3)))
    assert len(reads) == 1
    assert all(torch.equal(dataset.test.x, images) for dataset in found)
    assert len(prepared(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    folder = tmp_path / "toy"
    for split, count in (("train", 1500), ("test", 6)):
        for number in range(count):
            path = folder / split / CLASSES[number % 3] / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < 20:
                noise = np.random.default_rng(number).integers(0, 256, (375, 500, 3), np.uint8)
                Image.fromarray(noise).save(path)
            else:
                path.hardlink_to(
                    folder / split / CLASSES[number % 20 % 3] / f"{number % 20:04}.jpg"
                )
    process = forked(ready, replace(request(tmp_path, size=224), workers=2))
    before, peak, peaks_of_workers = megabytes(process.pid, "VmRSS"), 0.0, dict[int, float]()
    while process.is_alive():
        peak = max(peak, megabytes(process.pid, "VmHWM"))
        for pid in workers_of(process.pid):
            peaks_of_workers[pid] = max(peaks_of_workers.get(pid, 0), megabytes(pid, "VmHWM"))
        time.sleep(0.01)
    assert process.exitcode == 0
    assert (folder_of(tmp_path, size=224) / "train.npy").stat().st_size > 225e6
    assert peak - before < 60
    assert len(peaks_of_workers) == 2
    assert max(peaks_of_workers.values()) < 100


def megabytes(pid, what):
    """Memory of a process, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{what}:"))


def test_the_first_of_each_class_and_domain_are_those_in_the_order_of_paths():
    here = Path("somewhere")
    found = [Picture(p, y, d) for p, y, d in (("d", 0, 0), ("a", 1, 0), ("c", 0, 1), ("b", 0, 0))]
    found += [Picture(p, y, d) for p, y, d in (("f", 1, 0), ("e", 0, 1))]
    assert [p.path for p in first_pictures(found, None, where=here)] == list("abcdef")
    assert [p.path for p in first_pictures(found, 1, where=here)] == list("abc")
    for count in (0, 3):
        with pytest.raises(DataError, match=f"somewhere: {count} images a class .* 1 to 2"):
            first_pictures(found, count, where=here)


def test_pictures_of_a_folder_are_files_of_two_endings_that_are_not_hidden(tmp_path):
    for name in ("b.JPEG", "a.jpg", "._a.jpg", "list.txt", "c.png"):
        (tmp_path / name).touch()
    assert sorted(picture_names(tmp_path, absent="get it")) == ["a.jpg", "b.JPEG"]
    with pytest.raises(DataError, match=r"other: no such folder; get it"):
        picture_names(tmp_path / "other", absent="get it")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"other: holds no \*\.JPEG file"):
        picture_names(tmp_path / "other", absent="get it")
