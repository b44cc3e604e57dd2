"""Suites on Ray: the numbers of the inline executor, whatever dies on the way."""

import os
import re
import signal

import pytest
from processes import alive, checkpoint, descendants, holder, title, wait_for
from stored import files, manifests, numbers, trial_ids

TRAINED = re.compile(r"done (.*), accuracy ")  # what another run stored shows no accuracy

AGENTS = re.compile(r"DashboardAgent|RuntimeEnvAgent")
"""Ray's own, which take a minute or two to notice that their Ray was killed."""


@pytest.fixture
def join(begin_cold, ray_node, store):
    """Starts a suite on the session's Ray."""
    options = ("--results", store, "--address", ray_node.address)
    return lambda path, *more: begin_cold("run", path, *options, *more, **ray_node.token)


@pytest.fixture
def alone(begin_cold, store):
    """Starts a suite on a Ray of its own."""
    return lambda path, *more: begin_cold("run", path, "--results", store, *more)


def worker(store, trial_id, root, known=frozenset()):
    """The worker that runs a trial: the one that holds its lock, of those that `root` started."""
    lock = store / "locks" / trial_id
    return wait_for(
        lambda: holder(lock, {p for p in descendants(root) if p.pid not in known}),
        f"a worker of {trial_id}",
    )


def test_ray_gives_the_numbers_of_the_inline_executor(alone, call, suite, store, tmp_path):
    self_supervised = {
        "backbone": {"name": "cnn", "widths": [8, 16]},
        "objective": {"name": "simclr", "projection_dim": 16},
        "evaluators": ["probe_ridge", "probe_knn", "cost"],
        "primary": "probe_ridge",
        "passes": 1,
        "replay_batch": 16,
    }
    grids = [
        {"protocol": "class_incremental", "methods": ["finetune", "er", "joint"]},
        {"protocol": "online_ssl", "methods": ["replay"], "set": self_supervised},
    ]
    path = suite("both", grids=grids, seeds=[0])
    finished = alone(path).finish()
    assert (finished.status, finished.err) == (0, "")
    assert finished.out.startswith("both: 4 trials, 4 to run\n  running ")
    assert "4 done" in finished.out
    assert {found["attempts"] for found in manifests(store).values()} == {1}
    assert not files(store, "checkpoints") + files(store, "locks")
    assert not (store / ".tune").exists()

    call("run", path, "--results", tmp_path / "inline", "--executor", "inline")
    assert len(numbers(store)) == 4
    assert numbers(store) == numbers(tmp_path / "inline")


def test_a_killed_worker_costs_no_more_than_a_task(join, ray_node, long, store, undisturbed):
    running = join(long)
    trial_id = checkpoint(store, 1)
    os.kill(worker(store, trial_id, ray_node.pid), signal.SIGKILL)
    finished = running.finish()
    assert (finished.status, finished.err) == (0, "")
    assert re.search(r"again er digits/5 seed \d: its worker was lost\n", finished.out)
    assert "2 done" in finished.out
    assert numbers(store) == undisturbed()
    attempts = {name: found["attempts"] for name, found in manifests(store).items()}
    assert attempts.pop(trial_id) == 2
    assert set(attempts.values()) == {1}
    assert not files(store, "checkpoints") + files(store, "failures")


@pytest.mark.slow
def test_ctrl_c_ends_a_run_and_its_ray_at_once(alone, call, long, store, undisturbed):
    seeds = ("--set", "seeds=[0, 1, 2]")
    running = alone(long, *seeds)
    wait_for(lambda: numbers(store), "the first stored trial")
    checkpoint(store, 0)
    family = descendants(running.pid)
    running.tell(signal.SIGINT, group=True)
    finished = running.finish(30)
    assert (finished.status, finished.err) == (130, "")
    assert finished.out.splitlines()[-1].startswith("interrupted; ")
    wait_for(lambda: not [p for p in family if alive(p)], "the end of all processes", 20)
    assert len(kept := numbers(store)) in {1, 2}
    assert not (store / ".tune").exists()

    assert call("run", long, *seeds, "--results", store, "--executor", "inline").status == 0
    assert numbers(store) == undisturbed(3)
    assert numbers(store).items() >= kept.items()


def test_a_gpu_that_no_node_has_is_refused(join, suite, store):
    finished = join(suite(), "--set", "resources={cpu: 1, gpu: 1}").finish()
    assert finished.status == 2
    assert re.fullmatch(r"error: resources: [^\n]*gpu 1[^\n]*cpu 2, gpu 0[^\n]*\n", finished.err)
    assert not files(store, "trials") + files(store, "failures")


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_says_how_to_give_it(alone, ray_node, suite):
    finished = alone(suite(), "--address", ray_node.address).finish()
    assert finished.status == 2
    last = finished.err.splitlines()[-1]
    assert re.fullmatch(r"error: --address .*cannot join.*RAY_AUTH_MODE=token.*", last)
    assert "Traceback" not in finished.err


@pytest.mark.slow
def test_one_worker_runs_one_trial_at_a_time(join, long, store):
    assert join(long, "--workers", "1").finish().status == 0
    first, second = sorted(manifests(store).values(), key=lambda found: found["started"])
    assert first["ended"] <= second["started"]


@pytest.mark.slow
def test_failed_and_diverged_trials_on_ray_end_as_they_do_inline(join, run, suite, store):
    path = suite(methods=["finetune", {"name": "er", "label": "wild", "set": {"lr": 1e30}}])
    run(path, "--only", "label=wild")
    victim = trial_ids(store, "tiny")[1]
    (store / "checkpoints" / victim).write_text("a file where a folder is needed")
    finished = join(path, "--retry", "diverged").finish()
    assert (finished.status, finished.err) == (1, "")
    for count in ("1 failed", "1 done", "2 diverged"):
        assert count in finished.out
    assert f"{victim}.json" in files(store, "failures")


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_costs_its_trial_alone(
    join, ray_node, long, store, undisturbed
):
    slower = ("--set", "epochs=200")
    running = join(long, *slower)
    trial_id = checkpoint(store, 0)
    killed = set()
    while len(killed) < 4:
        pid = worker(store, trial_id, ray_node.pid, killed)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    finished = running.finish()
    assert (finished.status, finished.err) == (1, "")
    assert "lost: its worker was lost 4 times" in finished.out
    assert files(store, "failures") == [f"{trial_id}.json"]
    assert len(numbers(store)) == 1
    assert trial_id not in numbers(store)

    assert join(long, *slower).finish().status == 0
    assert manifests(store)[trial_id]["attempts"] > 1
    assert not files(store, "failures")


@pytest.mark.slow
def test_a_run_on_ray_and_one_without_share_the_work(join, alone, long, store, undisturbed):
    seeds = ("--set", "seeds=[0, 1, 2, 3]")
    running = [join(long, *seeds), alone(long, *seeds, "--executor", "inline")]
    ended = [one.finish() for one in running]
    assert [one.status for one in ended] == [0, 0]
    assert numbers(store) == undisturbed(4)
    assert [found["attempts"] for found in manifests(store).values()] == [1] * 4
    trained = [title for one in ended for title in TRAINED.findall(one.out)]
    assert sorted(trained) == [f"er digits/5 seed {seed}" for seed in range(4)]
    assert not files(store, "checkpoints")


@pytest.mark.slow
def test_a_killed_driver_leaves_no_worker_on_a_shared_ray(join, ray_node, long, store, undisturbed):
    driver = join(long)
    pid = worker(store, checkpoint(store, 1), ray_node.pid)
    (process,) = (p for p in descendants(ray_node.pid) if p.pid == pid)
    driver.tell(signal.SIGKILL)
    driver.finish()
    wait_for(lambda: not alive(process), "the end of the worker", 60)
    assert join(long).finish().status == 0
    assert numbers(store) == undisturbed()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_the_same_command_finishes_what_a_driver_left(alone, long, store, undisturbed, how):
    seeds = ("--set", "seeds=[0, 1, 2]")
    driver = alone(long, *seeds)
    wait_for(lambda: numbers(store), "the first stored trial")
    family = descendants(driver.pid)
    agents = {p for p in family if AGENTS.search(title(p))}
    driver.tell(signal.Signals[how])
    finished = driver.finish(30)
    assert finished.status == (-signal.SIGKILL if how == "SIGKILL" else 130)
    assert "Traceback" not in finished.err
    wait_for(lambda: not [p for p in family - agents if alive(p)], "the end of all workers", 60)
    wait_for(lambda: not [p for p in agents if alive(p)], "the end of Ray's agents", 200)

    again = alone(long, *seeds).finish()
    assert (again.status, again.err) == (0, "")
    assert numbers(store) == undisturbed(3)
    assert not files(store, "checkpoints")
