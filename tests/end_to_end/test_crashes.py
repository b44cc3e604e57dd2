"""A run that is killed or stopped costs at most one task, and the numbers come out the same.

Here without Ray; `test_ray_runs.py` has the same with it.
"""

import re
import signal

import pytest
from processes import alive, checkpoint, descendants, holder, wait_for
from stored import files, manifests, numbers, trial_ids

TRAINED = re.compile(r"done (.*), accuracy ")  # what another run stored shows no accuracy


@pytest.fixture
def command(long, store):
    return "run", long, "--results", store, "--executor", "inline"


def test_a_run_that_is_killed_goes_on_from_its_last_task(
    begin_cold, call, command, store, undisturbed
):
    killed = begin_cold(*command)
    trial_id = checkpoint(store, 1)
    killed.tell(signal.SIGKILL)
    assert killed.finish().status == -signal.SIGKILL
    assert trial_id not in numbers(store)

    assert call(*command).status == 0
    assert numbers(store) == undisturbed()
    assert manifests(store)[trial_id]["attempts"] == 2
    assert not files(store, "checkpoints")


def test_a_damaged_checkpoint_costs_one_more_task_and_no_number(
    begin, call, command, store, undisturbed
):
    killed = begin(*command)
    trial_id = checkpoint(store, 2)
    killed.tell(signal.SIGKILL)
    killed.finish()
    newest = max((store / "checkpoints" / trial_id).glob("task_*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])

    assert call(*command).status == 0
    assert numbers(store) == undisturbed()
    assert manifests(store)[trial_id]["attempts"] == 2


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGINT", "SIGTERM"])
def test_a_run_that_is_stopped_says_so_and_goes_on_when_asked_again(
    begin, begin_cold, call, command, store, undisturbed, how
):
    stopped = begin_cold(*command) if how == "Ctrl-C" else begin(*command)
    wait_for(lambda: numbers(store), "the first stored trial")
    checkpoint(store, 0)  # of the second
    family = descendants(stopped.pid)
    if how == "Ctrl-C":
        stopped.tell(signal.SIGINT, group=True)  # a terminal tells the whole group
    else:
        stopped.tell(signal.Signals[how])
    finished = stopped.finish()
    assert (finished.status, finished.err) == (130, "")
    assert finished.out.splitlines()[-1].startswith("interrupted; ")
    assert not [process for process in family if alive(process)]
    assert len(numbers(store)) == 1

    again = call(*command)
    assert again.status == 0
    assert "long: 2 trials, 1 to run" in again.out
    assert numbers(store) == undisturbed()


def test_two_runs_at_once_share_the_work_and_store_each_trial_once(
    begin, command, store, undisturbed
):
    ended = [running.finish() for running in (begin(*command), begin(*command))]
    assert [one.status for one in ended] == [0, 0]
    assert numbers(store) == undisturbed()
    assert [found["attempts"] for found in manifests(store).values()] == [1, 1]
    trained = [title for one in ended for title in TRAINED.findall(one.out)]
    assert sorted(trained) == ["er digits/5 seed 0", "er digits/5 seed 1"]
    assert all("2 done" in one.out for one in ended)
    assert not files(store, "checkpoints")


def test_a_run_takes_over_the_trial_of_one_that_is_killed(begin, command, store, undisturbed):
    running = [begin(*command), begin(*command)]
    families = {one.pid: descendants(one.pid) for one in running}
    trial_id = checkpoint(store, 0)
    lock = store / "locks" / trial_id
    pid = wait_for(lambda: holder(lock, set.union(*families.values())), "the trial's holder")
    victim, survivor = sorted(running, key=lambda one: one.pid != pid)
    (other,) = set(trial_ids(store, "long")) - {trial_id}
    wait_for(lambda: holder(store / "locks" / other, families[survivor.pid]), "the other's holder")
    victim.tell(signal.SIGKILL)
    victim.finish()
    assert survivor.finish().status == 0
    assert numbers(store) == undisturbed()
    attempts = manifests(store)
    assert (attempts[trial_id]["attempts"], attempts[other]["attempts"]) == (2, 1)
