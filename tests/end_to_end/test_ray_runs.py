"""Suites on Ray: the numbers of the inline executor, whatever dies on the way."""

import os
import re
import signal

import pytest
from command_line import finish, start
from processes import alive, descendants, holder, wait_for
from stored import files, manifests, numbers, trial_ids

LONG = {"methods": ["er"], "set": {"epochs": 40}}
TRAINED = re.compile(r"done (.*), accuracy ")  # what another run stored shows no accuracy
LINGERING = re.compile(r"DashboardAgent|RuntimeEnvAgent")
"""Ray's own agents, which need a minute to notice that a Ray was killed; they hold nothing."""


@pytest.fixture
def undisturbed(call, tmp_path):
    """The numbers of a suite without Ray, when nothing happens to it."""

    def run(path):
        store = tmp_path / "undisturbed"
        assert call("run", path, "--results", store, "--executor", "inline").status == 0
        return numbers(store)

    return run


@pytest.fixture
def join(ray_node, store):
    """Starts a suite on the session's Ray."""
    return lambda path, *more: start(
        ["run", path, "--results", str(store), "--address", ray_node.address, *more],
        ray_node.environment,
    )


@pytest.fixture
def own(store, environment):
    """Starts a suite on a Ray of its own."""
    return lambda path, *more: start(["run", path, "--results", str(store), *more], environment)


def checkpoint(store, task):
    """Waits until some trial has saved its state after this task."""
    pattern = f"checkpoints/*/task_{task:04d}_*.pt"
    return wait_for(lambda: next(store.glob(pattern), None), f"a checkpoint of task {task}")


def kill_worker(store, trial_id, root):
    """Kill the worker that holds a trial, one of the processes that come from `root`."""
    lock = (store / "locks" / trial_id).resolve()
    pid = wait_for(lambda: holder(lock, descendants(root)), f"the worker of {trial_id}")
    os.kill(pid, signal.SIGKILL)


def test_ray_gives_the_numbers_of_the_inline_executor(join, suite, store, undisturbed):
    grids = [
        {"protocol": "class_incremental", "methods": ["finetune", "er", "joint"]},
        {
            "protocol": "online_ssl",
            "methods": ["replay"],
            "set": {
                "backbone": {"name": "cnn", "widths": [8, 16]},
                "objective": {"name": "simclr", "projection_dim": 16},
                "evaluators": ["probe_ridge", "probe_knn", "cost"],
                "primary": "probe_ridge",
            },
        },
    ]
    path = suite("both", grids=grids, seeds=[0], set={"passes": 1, "replay_batch": 16})
    finished = finish(join(path))
    assert (finished.status, finished.err) == (0, "")
    assert "4 done" in finished.out
    assert len(numbers(store)) == 4
    assert numbers(store) == undisturbed(path)
    assert {found["attempts"] for found in manifests(store).values()} == {1}
    assert not files(store, "checkpoints") + files(store, "locks")
    assert not (store / ".tune").exists()


def test_a_killed_worker_costs_no_more_than_a_task(join, ray_node, suite, store, undisturbed):
    path = suite(**LONG)
    run = join(path)
    trial_id = checkpoint(store, 1).parent.name
    kill_worker(store, trial_id, ray_node.pid)
    finished = finish(run)
    assert (finished.status, finished.err) == (0, "")
    assert "2 done" in finished.out
    assert numbers(store) == undisturbed(path)
    attempts = {name: found["attempts"] for name, found in manifests(store).items()}
    assert attempts.pop(trial_id) == 2
    assert set(attempts.values()) == {1}
    assert not files(store, "checkpoints") + files(store, "failures")


def test_a_gpu_that_no_node_has_is_refused(join, suite, store):
    finished = finish(join(suite(), "--set", "resources={cpu: 1, gpu: 1}"))
    assert finished.status == 2
    assert re.fullmatch(r"error: resources: .*gpu 1.*largest node has cpu 2, gpu 0.*\n", finished.err)
    assert not files(store, "trials") + files(store, "failures")


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_is_named(ray_node, suite, store, environment):
    command = ["run", suite(), "--results", str(store), "--address", ray_node.address]
    finished = finish(start(command, environment))
    assert finished.status == 2
    last = finished.err.splitlines()[-1]
    assert re.fullmatch(r"error: --address .*cannot join.*RAY_AUTH_MODE=token.*", last)
    assert "Traceback" not in finished.err


@pytest.mark.slow
def test_fewer_workers_run_fewer_trials_at_once(join, suite, store):
    finished = finish(join(suite(**LONG), "--workers", "1"))
    assert finished.status == 0
    first, second = sorted(manifests(store).values(), key=lambda found: found["started"])
    assert first["ended"] <= second["started"]


@pytest.mark.slow
def test_a_failing_and_a_diverging_trial_on_ray_end_as_they_do_inline(join, suite, store, call):
    path = suite(methods=["finetune", {"name": "er", "label": "wild", "set": {"lr": 1e30}}])
    inline = ("--results", store, "--executor", "inline")
    call("run", path, *inline, "--only", "seed=0,1", "--only", "method=er")
    victim = trial_ids(store, "tiny")[1]
    (store / "checkpoints" / victim).write_text("a file where a folder is needed")
    finished = finish(join(path, "--retry", "diverged"))
    assert finished.status == 1
    assert "1 failed" in finished.out
    assert "1 done" in finished.out
    assert "2 diverged" in finished.out
    assert "Traceback" not in finished.out + finished.err


@pytest.mark.slow
def test_a_worker_that_is_killed_again_and_again_costs_its_trial_alone(
    join, ray_node, suite, store, undisturbed
):
    path = suite(**LONG)
    run = join(path)
    trial_id = checkpoint(store, 0).parent.name
    killed: set[int] = set()
    lock = (store / "locks" / trial_id).resolve()
    while len(killed) < 4:
        pid = wait_for(
            lambda: holder(lock, {p for p in descendants(ray_node.pid) if p.pid not in killed}),
            "a worker of the victim",
        )
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    finished = finish(run)
    assert finished.status == 1
    assert "lost: its worker was lost 4 times" in finished.out
    assert files(store, "failures") == [f"{trial_id}.json"]
    assert len(numbers(store)) == 1

    assert finish(join(path)).status == 0
    assert numbers(store) == undisturbed(path)
    assert not files(store, "failures")


@pytest.mark.slow
def test_a_run_on_ray_and_one_without_share_the_work(join, own, suite, store, undisturbed):
    path = suite(**LONG, seeds=[0, 1, 2, 3])
    both = [join(path), own(path, "--executor", "inline")]
    ended = [finish(process) for process in both]
    assert [one.status for one in ended] == [0, 0]
    assert numbers(store) == undisturbed(path)
    assert [found["attempts"] for found in manifests(store).values()] == [1] * 4
    trained = [title for one in ended for title in TRAINED.findall(one.out)]
    assert sorted(trained) == [f"er digits/5 seed {seed}" for seed in range(4)]
    assert not files(store, "checkpoints")


@pytest.mark.slow
def test_a_killed_driver_of_a_shared_ray_leaves_no_worker_behind(
    join, ray_node, suite, store, undisturbed
):
    path = suite(**LONG)
    driver = join(path)
    trial_id = checkpoint(store, 1).parent.name
    lock = (store / "locks" / trial_id).resolve()
    worker = next(p for p in descendants(ray_node.pid) if holder(lock, {p}))
    driver.kill()
    finish(driver)
    wait_for(lambda: not alive(worker), "the end of the worker", 60)
    assert finish(join(path)).status == 0
    assert numbers(store) == undisturbed(path)


def test_ctrl_c_ends_a_run_and_its_ray_at_once(own, suite, store, call, undisturbed):
    path = suite(**LONG, seeds=[0, 1, 2])
    driver = own(path)
    wait_for(lambda: numbers(store), "the first stored trial")
    checkpoint(store, 0)
    family = descendants(driver.pid)
    os.killpg(driver.pid, signal.SIGINT)
    finished = finish(driver, 30)
    assert (finished.status, finished.err) == (130, "")
    assert finished.out.splitlines()[-1].startswith("interrupted; ")
    wait_for(lambda: not [p for p in family if alive(p)], "the end of all processes", 20)
    kept = numbers(store)
    assert kept
    assert not (store / ".tune").exists()

    assert call("run", path, "--results", store, "--executor", "inline").status == 0
    assert numbers(store) == undisturbed(path)
    assert numbers(store).items() >= kept.items()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_driver_that_ends_early_is_finished_by_the_same_command(
    own, suite, store, undisturbed, how
):
    path = suite(**LONG, seeds=[0, 1, 2])
    driver = own(path)
    wait_for(lambda: numbers(store), "the first stored trial")
    family = descendants(driver.pid)
    agents = {p for p in family if LINGERING.search(_title(p.pid))}
    driver.send_signal(signal.Signals[how])
    finished = finish(driver, 30)
    assert finished.status == (-signal.SIGKILL if how == "SIGKILL" else 130)
    assert "Traceback" not in finished.err
    wait_for(lambda: not [p for p in family - agents if alive(p)], "the end of all workers", 60)
    wait_for(lambda: not [p for p in agents if alive(p)], "the end of Ray's agents", 200)

    again = finish(own(path))
    assert (again.status, again.err) == (0, "")
    assert numbers(store) == undisturbed(path)
    assert not files(store, "checkpoints")


def _title(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
