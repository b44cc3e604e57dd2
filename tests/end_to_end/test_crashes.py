"""A run that is killed or stopped costs at most one task, and the numbers come out the same.

Here without Ray; `test_ray_runs.py` has the same with it.
"""

import os
import re
import signal

import pytest
from command_line import finish, start
from processes import alive, descendants, wait_for
from stored import files, manifests, numbers, trial_ids

LONG = {"methods": ["er"], "set": {"epochs": 40}}
TRAINED = re.compile(r"done (.*), accuracy ")  # what another run stored shows no accuracy


@pytest.fixture
def undisturbed(call, suite, tmp_path):
    """The numbers of the long suite when nothing happens to it."""
    store = tmp_path / "undisturbed"
    assert call("run", suite(**LONG), "--results", store, "--executor", "inline").status == 0
    return numbers(store)


@pytest.fixture
def begin(suite, store, environment):
    """Starts the long suite in a process of its own."""
    command = ["run", suite(**LONG), "--results", str(store), "--executor", "inline"]
    return lambda: start(command, environment)


def checkpoint(store, task):
    """Waits until some trial has saved its state after this task."""
    pattern = f"checkpoints/*/task_{task:04d}_*.pt"
    return wait_for(lambda: next(store.glob(pattern), None), f"a checkpoint of task {task}")


def test_a_run_that_is_killed_goes_on_from_its_last_task(undisturbed, begin, store):
    killed = begin()
    trial_id = checkpoint(store, 1).parent.name
    killed.kill()
    assert finish(killed).status == -signal.SIGKILL
    assert trial_id not in numbers(store)

    assert finish(begin()).status == 0
    assert numbers(store) == undisturbed
    assert manifests(store)[trial_id]["attempts"] == 2
    assert not files(store, "checkpoints")


def test_a_damaged_checkpoint_costs_one_more_task_and_no_number(undisturbed, begin, store):
    killed = begin()
    newest = checkpoint(store, 2)
    killed.kill()
    finish(killed)
    for path in store.glob("checkpoints/*/task_*.pt"):
        if path.name >= newest.name:
            path.write_bytes(path.read_bytes()[:1000])
    assert finish(begin()).status == 0
    assert numbers(store) == undisturbed
    assert manifests(store)[newest.parent.name]["attempts"] == 2


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGINT", "SIGTERM"])
def test_a_run_that_is_stopped_says_so_and_goes_on_when_asked_again(undisturbed, begin, store, how):
    stopped = begin()
    wait_for(lambda: numbers(store), "the first stored trial")
    checkpoint(store, 0)  # of the second
    family = descendants(stopped.pid)
    if how == "Ctrl-C":
        os.killpg(stopped.pid, signal.SIGINT)  # a terminal tells the whole group
    else:
        stopped.send_signal(signal.Signals[how])
    finished = finish(stopped)
    assert (finished.status, finished.err) == (130, "")
    assert finished.out.splitlines()[-1].startswith("interrupted; ")
    assert not [process for process in family if alive(process)]
    assert len(numbers(store)) == 1

    assert "1 to run" in (again := finish(begin())).out
    assert again.status == 0
    assert numbers(store) == undisturbed


def test_two_runs_at_once_share_the_work_and_store_each_trial_once(undisturbed, begin, store):
    both = [begin(), begin()]
    ended = [finish(process) for process in both]
    assert [one.status for one in ended] == [0, 0]
    assert numbers(store) == undisturbed
    assert [found["attempts"] for found in manifests(store).values()] == [1, 1]
    trained = [title for one in ended for title in TRAINED.findall(one.out)]
    assert sorted(trained) == ["er digits/5 seed 0", "er digits/5 seed 1"]
    assert all("2 done" in one.out for one in ended)
    assert not files(store, "checkpoints")


def test_a_run_takes_over_the_trial_of_one_that_is_killed(undisturbed, begin, store):
    killed = begin()
    trial_id = checkpoint(store, 1).parent.name
    waiting = begin()
    other = next(i for i in trial_ids(store, "tiny") if i != trial_id)
    wait_for(lambda: list(store.glob(f"checkpoints/{other}/*.pt")), "the other run's checkpoint")
    killed.kill()
    finish(killed)
    assert finish(waiting).status == 0
    assert numbers(store) == undisturbed
    assert manifests(store)[other]["attempts"] == 1
