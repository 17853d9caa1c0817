"""Jobs on this machine and on a SLURM cluster of one node: ended, failed, killed, preempted, met again."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from scripts.sweep import jobs
from tests import slurm_node

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # where jobs find tests.toy_stage
    monkeypatch.setattr(jobs.Slurm, "pause", 0.5)


@pytest.fixture(scope="module")
def cluster():
    if reason := slurm_node.why_not():
        pytest.skip(f"no SLURM here: {reason}")
    with slurm_node.node() as host:
        yield host


def toy(root, name, seconds=0.0, word="made"):
    file = root / f"{name}.txt"
    folder = root / "jobs" / name
    step = jobs.Step("draw", "tests.toy_stage", [str(file), str(seconds), word], {folder: ""})
    return jobs.Job([step], [folder], [root])


def begun(root, name):
    path = root / f"{name}.begun"
    return len(path.read_text()) if path.exists() else 0


def local(root, workers=2):
    return jobs.Local(root / "logs", workers, [])


def slurm(root, at_once=2):
    return jobs.Slurm(root / "logs", time=30, cpus_per_task=1, array_parallelism=at_once)


def ended(todo, executor, running=()):
    return [folder.name for folder in jobs.run(todo, executor, set(running))]


def in_background(todo, executor):
    names = []
    thread = threading.Thread(target=lambda: names.extend(ended(todo, executor)), daemon=True)
    thread.start()
    return thread, names


def test_local_jobs_end_and_note_seconds(tmp_path):
    names = ended([toy(tmp_path, name) for name in "abc"], local(tmp_path))
    assert sorted(names) == ["a", "b", "c"]
    for name in "abc":
        assert (tmp_path / f"{name}.txt").read_text() == "made" and begun(tmp_path, name) == 1
        assert list(json.loads((tmp_path / "jobs" / name / jobs.SECONDS).read_text())) == ["draw"]
    assert not jobs.alive(tmp_path / "jobs" / name for name in "abc")


def test_workers_share_gpus_in_turn(tmp_path):
    executor = jobs.Local(tmp_path / "logs", 3, ["4", "GPU-7"])
    todo = [toy(tmp_path, name, 1) for name in "abc"]
    assert len(ended(todo, executor)) == 3 and [job.gpu for job in todo] == ["4", "GPU-7", "4"]


def test_never_more_jobs_than_workers(tmp_path):
    todo, most = [toy(tmp_path, str(number), 0.5) for number in range(4)], []
    thread, _ = in_background(todo, local(tmp_path, 2))
    while thread.is_alive():
        most.append(len(jobs.alive(job.folders[0] for job in todo)))
        time.sleep(0.1)
    assert max(most) <= 2 and all(begun(tmp_path, str(number)) == 1 for number in range(4))


def test_a_failed_job_names_its_error_and_leaves_no_seconds(tmp_path):
    ended([toy(tmp_path, "a", word="fail"), toy(tmp_path, "b")], local(tmp_path))
    assert not (tmp_path / "jobs/a" / jobs.SECONDS).exists() and (tmp_path / "b.txt").exists()
    assert "a.txt cannot be made" in Path(jobs.latest_job(tmp_path / "jobs/a")["log"]).read_text()


def test_a_failed_step_ends_its_experiment_and_no_other(tmp_path):
    a, b = toy(tmp_path, "a", word="fail"), toy(tmp_path, "b")
    folders = [*a.folders, *b.folders]
    both = jobs.Step(
        "look", "tests.toy_stage", [str(tmp_path / "c.txt"), "0"], dict(zip(folders, ("A", "B")))
    )
    assert ended([jobs.Job([*a.steps, *b.steps, both], folders)], local(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b.txt").exists() and (tmp_path / "c.txt").read_text() == "--runs B"
    assert not (folders[0] / jobs.SECONDS).exists()
    assert json.loads((folders[1] / jobs.SECONDS).read_text()).keys() == {"draw", "look"}
    log = jobs.latest_job(folders[0])["log"]
    assert "a.txt cannot be made" in jobs.reason(log, folders[0]) and not jobs.reason(log, folders[1])


def test_a_killed_worker_ends_its_job_only(tmp_path):
    thread, names = in_background([toy(tmp_path, "a", 60), toy(tmp_path, "b", 2)], local(tmp_path))
    slurm_node.wait(lambda: begun(tmp_path, "a"), 60, "job a to begin")
    for child in psutil.Process(int(jobs.latest_job(tmp_path / "jobs/a")["id"])).children():
        child.kill()
    thread.join(60)
    assert sorted(names) == ["a", "b"] and not (tmp_path / "a.txt").exists()
    assert ended([toy(tmp_path, "a")], local(tmp_path)) == ["a"] and (tmp_path / "a.txt").exists()


def test_jobs_of_a_stopped_sweep_are_ended(tmp_path):
    todo = [toy(tmp_path, "a", 60), toy(tmp_path, "b", 60)]
    thread, names = in_background(todo, local(tmp_path))
    slurm_node.wait(lambda: begun(tmp_path, "a") and begun(tmp_path, "b"), 60, "both jobs to begin")
    folders = [job.folders[0] for job in todo]
    assert jobs.alive(folders) == {*folders}
    assert jobs.Local.stop(folders) == "so are its jobs on this machine"
    thread.join(10)
    assert sorted(names) == ["a", "b"] and not jobs.alive(folders) and not [*tmp_path.glob("*.txt")]
    assert "KeyboardInterrupt" in Path(jobs.latest_job(folders[0])["log"]).read_text()
    assert jobs.Local.stop(folders) == "so are its jobs on this machine"  # nothing is left to end


def test_jobs_of_a_dead_sweep_are_waited_for(tmp_path):
    first, job = local(tmp_path), toy(tmp_path, "a", 4)
    next(iter_once := jobs.run([job, toy(tmp_path, "b")], first, set()))
    iter_once.close()  # the sweep is gone, its job is not
    assert jobs.alive(job.folders) == {*job.folders}
    assert ended([], local(tmp_path), job.folders) == ["a"] and begun(tmp_path, "a") == 1


def test_a_number_that_passed_to_another_process_is_not_a_job(tmp_path):
    jobs.write_json(tmp_path / jobs.JOB, {"executor": "local", "id": str(os.getpid()), "slot": 0, "log": ""})
    assert "submitit" not in " ".join(sys.argv) and not jobs.alive([tmp_path])


def test_usr2_runs_a_local_job_again(tmp_path):
    thread, names = in_background([toy(tmp_path, "a", 3)], local(tmp_path))
    slurm_node.wait(lambda: begun(tmp_path, "a"), 60, "job a to begin")
    for child in psutil.Process(int(jobs.latest_job(tmp_path / "jobs/a")["id"])).children():
        child.send_signal(signal.SIGUSR2)
    thread.join(60)
    assert names == ["a"] and begun(tmp_path, "a") == 2 and (tmp_path / "a.txt").exists()


def test_old_claims_are_cleared(tmp_path):
    (tmp_path / ".claim-3").write_text("elsewhere 1")
    toy(tmp_path, "a")()
    assert not (tmp_path / ".claim-3").exists()


def test_extrapolate_counts_a_minute_up(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\nfor n in range(100):\n open(f'done{n}', 'w'); time.sleep(0.2)\n"
    )
    os.chdir(tmp_path)
    seconds = jobs.extrapolate("slow", [], lambda: len([*tmp_path.glob("done*")]), 100, limit=4)
    assert 18 < seconds < 35  # 100 steps of 0.2 seconds, on a busy machine


def test_slurm_without_answer_keeps_its_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        jobs.subprocess, "run", lambda *a, **k: type("R", (), {"returncode": 1, "stdout": ""})
    )
    assert jobs.Slurm.alive({"1_0", "1_1"}) == {"1_0", "1_1"}


@pytest.mark.slow
def test_slurm_array_with_a_kill_a_drain_and_a_preemption(cluster, tmp_path):
    """A dozen jobs, one killed, one preempted, the node drained and resumed: nothing twice, nothing lost."""
    names = [f"job{number}" for number in range(12)]
    todo = [toy(tmp_path, name, 5) for name in names]
    thread, done = in_background(todo, slurm(tmp_path))
    slurm_node.wait(lambda: begun(tmp_path, "job0") and begun(tmp_path, "job1"), 60, "two jobs to begin")
    number = {name: jobs.latest_job(tmp_path / "jobs" / name)["id"] for name in names}
    slurm_node.kill(number["job0"])
    slurm_node.preempt(number["job1"])
    slurm_node.call("scontrol", "update", f"NodeName={cluster}", "State=DRAIN", "Reason=test")
    time.sleep(8)
    idle = [name for name in names if not begun(tmp_path, name)]
    assert jobs.alive(tmp_path / "jobs" / name for name in idle) == {tmp_path / "jobs" / n for n in idle}
    slurm_node.call("scontrol", "update", f"NodeName={cluster}", "State=RESUME")
    thread.join(400)
    assert sorted(done) == sorted(names) and not (tmp_path / "job0.txt").exists()
    assert begun(tmp_path, "job1") == 2 and (tmp_path / "job1.txt").exists()
    assert ended([todo[0]], slurm(tmp_path)) == ["job0"]
    assert [begun(tmp_path, name) for name in names] == [2, 2] + 10 * [1]
    assert all((tmp_path / f"{name}.txt").read_text() == "made" for name in names)
