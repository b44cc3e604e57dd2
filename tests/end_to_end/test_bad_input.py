"""A mistake of the user's costs one clear message and status 2, and leaves nothing in the store."""

import json
import re
import socket
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from stored import files, trial_ids

from harness.schema import SCHEMA_KEY

SUGGESTIONS = {
    "method": ("methods=[err]", "'err'; did you mean 'er'?"),
    "data set": ("datasets=[digit]", "'digit'; did you mean 'digits'?"),
    "protocol": ("protocol=online_sll", "'online_sll'; did you mean 'online_ssl'?"),
    "evaluator": ("evaluators=[classifer]", "'classifer'; did you mean 'classifier'?"),
    "backbone": ("backbone=mpl", "'mpl'; did you mean 'mlp'?"),
    "objective": ("objective=simclrr", "'simclrr'; did you mean 'simclr'?"),
    "augmentation": ("augmentation=standrd", "'standrd'; did you mean 'standard'?"),
    "setting": ("epoch=1", "'epoch'; did you mean 'epochs'?"),
    "setting of a method": ("er.replay_wight=1", "did you mean 'replay_weight'?"),
    "setting of a backbone": ("backbone.hiden=[3]", "'hiden'; did you mean 'hidden'?"),
    "resource": ("resources={cpus: 1}", "'cpus'; did you mean 'cpu'?"),
    "distribution": ("distribution=[regulr]", "'regular'"),
}

VALUES = {
    "text for a number": ("epochs=three", 'epochs: .*integer, got "three"'),
    "a fraction for a count": ("epochs=1.5", "epochs: .*integer, got 1.5"),
    "a truth value for a count": ("epochs=true", "epochs: .*integer, got true"),
    "a number for a list": ("seeds=0", "seeds: .*got 0"),
    "no seeds": ("seeds=[]", "seeds: at least one"),
    "a negative seed": ("seeds=[-1]", "seeds: .*got -1"),
    "a negative number of tasks": ("num_tasks=-2", "num_tasks: must be at least 1, got -2"),
    "tasks that do not divide the classes": ("num_tasks=3", "10 classes .* 3 .*are 2 and 5"),
    "more tasks than classes": ("num_tasks=20", "10 classes cannot fill 20 tasks"),
    "a class order with gaps": ("class_order=[0, 1]", "class order .* missing"),
    "a negative learning rate": ("lr=-1", "lr must not be negative, got -1"),
    "no cores": ("resources={cpu: 0}", "cpu must be above 0"),
    "a primary that is not measured": ("primary=probe_ridge", "primary: .*'probe_ridge'"),
    "a probe without validation": ("evaluators=[probe_linear]", "primary|validation"),
    "no value": ("epochs", "expected KEY=VALUE"),
    "broken YAML": ("epochs=[1", "--set .*not valid YAML"),
}

ONLINE = {
    "a replay batch as large as the buffer": (
        ["methods=[cla_e]", "replay_batch=50"],
        "method cla_e: buffer_size must be above replay_batch",
    ),
    "one image with batch normalisation": (
        ["methods=[no_strategy]", "batch_size=1"],
        "method no_strategy: batch_size: batch normalisation .* 1 image",
    ),
    "alignment without projections": (
        ["methods=[climb]", "objective=mae", "backbone={name: vit_tiny, dim: 12, heads: 2}"],
        "method climb: .*objective MAE",
    ),
    "a loss of its own under another objective": (
        ["methods=[scale]", "objective=simsiam"],
        "method scale: .*objective SimSiam would not be used",
    ),
    "masks without patches": (
        ["methods=[replay]", "objective=mae"],
        "method replay: objective mae needs a backbone of patches",
    ),
    "a memory that consolidation cannot empty": (
        ["methods=[climb]", "climb.examples=20"],
        "method climb: buffer_size: a memory of 50 images is too small",
    ),
    "domains of a set that has none": (
        ["methods=[no_strategy]", "distribution=[domains]"],
        "data set digits has no domains",
    ),
    "a fidelity that is none": (
        ["methods=[climb]", "climb.fidelity=upstraem"],
        "fidelity: .*'clean' or 'upstream'.*\"upstraem\"",
    ),
}

FILES = {
    "a list": ("- digits\n", "expected a mapping"),
    "text": ("just words", "expected a mapping"),
    "broken YAML": ("methods: [er\nseeds: 3", "line 2.*not valid YAML"),
    "a key twice": ("seeds: [0]\nseeds: [1]", "not valid YAML.*duplicate"),
    "nothing": ("", "missing keys"),
    "an unknown key": ("method: [er]", "did you mean 'methods'?|missing keys"),
}

OPTIONS = {
    "an unknown key of --only": (["--only", "metod=er"], "'metod'; did you mean 'method'?"),
    "an unknown value of --only": (["--only", "method=err"], "'err'; did you mean 'er'?"),
    "--only without values": (["--only", "method"], "expected KEY=V1,V2"),
    "an unknown state of --retry": (["--retry", "diverge"], "did you mean 'diverged'?"),
    "no workers": (["--workers", "0"], "--workers .*got 0"),
    "an address for the inline executor": (
        ["--executor", "inline", "--address", "127.0.0.1:6379"],
        "--executor inline",
    ),
    "an address without a port": (["--address", "127.0.0.1"], "expected HOST:PORT"),
    "an address without a host": (["--address", ":6379"], "expected HOST:PORT"),
    "a port that is none": (["--address", "127.0.0.1:port"], "expected HOST:PORT"),
}


def assert_refused(finished, *fragments):
    """One line that begins with `error:`, says `fragments`, and status 2."""
    assert finished.status == 2, finished
    assert re.fullmatch(r"error: [^\n]+\n", finished.err), finished.err
    for fragment in fragments:
        assert re.search(fragment, finished.err), finished.err


def cases(table):
    return [pytest.param(*row, id=name) for name, row in table.items()]


@pytest.mark.parametrize(("assignment", "hint"), cases(SUGGESTIONS))
def test_an_unknown_name_is_answered_with_the_nearest_one(call, suite, store, assignment, hint):
    finished = call("run", suite(), "--results", store, "--set", assignment)
    assert_refused(finished, r"tiny\.yaml|--set", re.escape(hint))
    assert not store.exists()


@pytest.mark.parametrize(("assignment", "message"), cases(VALUES))
def test_a_value_that_does_not_fit_is_named(call, suite, store, assignment, message):
    finished = call("run", suite(), "--results", store, "--set", assignment)
    assert_refused(finished, r"tiny\.yaml|--set", message)
    assert not store.exists()


@pytest.mark.parametrize(("assignments", "message"), cases(ONLINE))
def test_a_self_supervised_method_says_what_it_cannot_use(call, suite, store, assignments, message):
    common = ["protocol=online_ssl", "primary=cost", "evaluators=[cost]", "replay_batch=16"]
    options = [part for text in [*common, *assignments] for part in ("--set", text)]
    finished = call("run", suite(), "--results", store, *options)
    assert_refused(finished, r"tiny\.yaml|--set", message)
    assert not store.exists()


@pytest.mark.parametrize(("content", "message"), cases(FILES))
def test_a_file_that_is_no_suite_is_named(call, store, tmp_path, content, message):
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    assert_refused(call("run", path, "--results", store), r"odd\.yaml", message)
    assert not store.exists()


@pytest.mark.parametrize(("options", "message"), cases(OPTIONS))
def test_an_option_that_does_not_fit_is_named(call, suite, store, options, message):
    assert_refused(call("run", suite(), "--results", store, *options), message)
    assert not store.exists()


def test_a_missing_suite_file_is_answered_with_its_neighbour(call, suite, store, tmp_path):
    suite("tiny")
    finished = call("run", tmp_path / "tinny.yaml", "--results", store)
    assert_refused(finished, r"tinny\.yaml: no such file; did you mean .*tiny\.yaml")


def test_a_typing_error_in_an_option_is_refused_without_a_traceback(call, suite):
    finished = call("run", suite(), "--executor", "inlin")
    assert finished.status == 2
    assert "inline" in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.parametrize("below", ["a file", "/proc"])
def test_a_results_folder_that_cannot_be_written_is_named(call, suite, below):
    path = suite()
    folder = f"{path}/results" if below == "a file" else "/proc/results"
    finished = call("run", path, "--results", folder, "--executor", "inline")
    assert_refused(finished, "--results", re.escape(folder), "cannot be written")


def test_a_report_that_cannot_be_written_is_named(call, run, suite, store):
    path = suite(seeds=[0], methods=["finetune"])
    assert run(path).status == 0
    assert_refused(call("report", store, "--out", f"{path}/report"), r"tiny\.yaml/", "written")


@pytest.mark.parametrize("command", ["run", "report", "reproduce"])
def test_a_results_file_that_was_cut_short_is_named(call, run, suite, store, command):
    path = suite(seeds=[0], methods=["finetune"])
    assert run(path).status == 0
    (trial_id,) = trial_ids(store, "tiny")
    file = store / "trials" / f"{trial_id}.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    arguments = {
        "run": ["run", path, "--results", store],
        "report": ["report", store],
        "reproduce": ["reproduce", trial_id, "--results", store],
    }
    assert_refused(call(*arguments[command]), re.escape(str(file)))


@pytest.mark.parametrize("command", ["report", "reproduce"])
def test_a_results_file_of_an_older_version_is_named(call, run, suite, store, command):
    assert run(suite(seeds=[0], methods=["finetune"])).status == 0
    (trial_id,) = trial_ids(store, "tiny")
    file = store / "trials" / f"{trial_id}.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, SCHEMA_KEY: b"0"}), file)
    arguments = {
        "report": ["report", store],
        "reproduce": ["reproduce", trial_id, "--results", store],
    }
    assert_refused(call(*arguments[command]), re.escape(str(file)), "schema")


@pytest.mark.parametrize("trial_id", ["0123456789abcdef", "nonsense"])
def test_reproducing_a_trial_that_is_not_stored_is_refused(call, store, trial_id):
    assert_refused(call("reproduce", trial_id, "--results", store), trial_id, "no such trial")


def test_a_report_of_no_folder_is_refused(call, tmp_path):
    assert_refused(call("report", tmp_path / "nothing"), "nothing", "no such folder")


def test_a_report_of_an_empty_folder_is_refused(call, tmp_path):
    assert_refused(call("report", tmp_path), "no trial is stored and no suite wants any")


def test_a_report_of_an_unknown_paper_is_refused(call, tmp_path):
    assert_refused(call("report", tmp_path, "--paper", "clim"), "'clim'; did you mean 'climb'?")


def test_verifying_what_is_no_figure_is_refused(call, tmp_path):
    (tmp_path / "notes.pdf").write_text("hello")
    finished = call("report", tmp_path, "--verify", tmp_path / "notes.pdf")
    assert_refused(finished, r"notes\.pdf: cannot be read as a PNG or PDF")


def test_compacting_no_folder_is_refused(call, tmp_path):
    assert_refused(call("compact", tmp_path / "nothing"), "nothing: no such folder")


def test_two_results_of_one_trial_that_differ_are_named(call, run, suite, store):
    assert run(suite(seeds=[0], methods=["finetune"])).status == 0
    (trial_id,) = trial_ids(store, "tiny")
    file = store / "trials" / f"{trial_id}.parquet"
    table = pq.read_table(file)
    assert call("compact", store).status == 0
    rows = table.to_pylist()
    rows[0]["value"] += 0.25
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    for command in ("report", "compact"):
        assert_refused(call(command, store), f"two results of trial {trial_id} differ", "remove")


def test_showing_an_unknown_method_is_refused(call):
    assert_refused(call("show", "finetun"), "'finetun'; did you mean 'finetune'?")


def test_checking_an_unknown_data_set_is_refused(call):
    assert_refused(call("data", "check", "digit"), "'digit'; did you mean 'digits'?")


def test_a_damaged_data_set_is_named_before_anything_runs(run, suite, store, environment, tmp_path):
    folder = tmp_path / "data" / "fashion_mnist"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte").write_bytes(b"nothing of the kind")
    finished = run(suite(datasets=["fashion_mnist"]), "--set", f"data_root={folder.parent}")
    assert_refused(finished, re.escape(str(folder)))
    assert not files(store, "trials") + files(store, "failures")


def test_a_data_set_that_is_not_there_is_named_with_where_it_was_looked_for(run, suite, store):
    from harness.data.sets.fashion_mnist import DEBIAN

    if DEBIAN.exists():
        pytest.skip("this machine has the data set, in a place that cannot be hidden")
    finished = run(suite(datasets=["fashion_mnist"]))
    assert finished.status == 2
    assert finished.err.startswith("error: fashion_mnist was not found. Looked in:")
    assert "Traceback" not in finished.err
    assert not files(store, "trials") + files(store, "failures")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_where_there_is_none_is_refused(run, suite, store):
    finished = run(suite(), "--set", "resources={cpu: 1, gpu: 1}")
    assert_refused(finished, "gpu 1", "none")
    assert not files(store, "trials") + files(store, "failures")


def test_a_closed_port_is_known_within_seconds(begin_cold, suite, store):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    began = time.monotonic()
    finished = begin_cold("run", suite(), "--results", store, "--address", address).finish()
    assert_refused(finished, f"--address {address}: no answer")
    assert time.monotonic() - began < 20  # two or three are enough where nothing else runs
    assert not store.exists()


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_where_something_else_listens_is_known_within_seconds(call, suite, store, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        finished = call("run", suite(), "--results", store, "--address", address)
        seconds = time.monotonic() - began
    assert_refused(finished, f"--address {address}: (no answer|this is not Ray)")
    assert seconds < 15
    assert not store.exists()


def _answer(server, answer):
    link, _ = server.accept()
    with link:
        link.settimeout(10)
        link.recv(100)
        if answer is None:
            link.recv(1)  # nothing more comes: silence until the caller hangs up
        else:
            link.sendall(answer)


def test_a_plan_of_a_bad_suite_is_refused_like_its_run(call, suite, store):
    path = suite(methods=["err"])
    assert call("plan", path, "--results", store).err == call("run", path, "--results", store).err


def test_every_suite_key_is_checked_at_once_in_each_grid(call, store, tmp_path):
    path = tmp_path / "two.yaml"
    grids = [{"protocol": "class_incremental"}, {"protocol": "class_incrementl"}]
    keys = {"methods": ["er"], "datasets": ["digits"], "num_tasks": [5], "seeds": [0]}
    path.write_text(json.dumps({**keys, "grids": grids}))
    finished = call("run", path, "--results", store)
    assert_refused(finished, "two.yaml, grid 2", "did you mean 'class_incremental'?")
