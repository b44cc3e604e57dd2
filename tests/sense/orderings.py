"""Run a suite and look at its final accuracies."""

from pathlib import Path

from analysis.load import load
from analysis.summary import summarise
from harness.execute import Setup, execute
from harness.grid import expand, select
from harness.store import Store
from harness.suite import load_suite


def final_accuracies(suite_path, folder, data_root, **only):
    """FA by label (one seed) or by label and seed, after running the suite's trials."""
    trials, skips = expand(load_suite(suite_path))
    assert not skips
    store = Store(folder)
    store.create()
    for trial in select(trials, {key: frozenset(values) for key, values in only.items()}):
        outcome = execute(trial, Setup(folder, data_root, {}), lambda _: None)
        assert outcome.status == "done", outcome
    scores = summarise(load(folder))
    return scores.set_index(["label", "seed"])["FA"]


def write(folder: Path, text: str) -> Path:
    path = folder / "sense.yaml"
    path.write_text(text)
    return path
