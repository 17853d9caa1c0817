"""Real sweeps with a kill, a preemption and a drained node in the middle end in the bytes of a quiet one.

One method on three targets and the base model: 3 trainings, 4 answer sets of 54 images, judged and scored.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import psutil
import pytest
from omegaconf import OmegaConf

from evaluation import protocol
from evaluation.answers.predictions import PREDICTIONS, read_predictions
from scripts.sweep import jobs
from tests import slurm_node
from tests.test_sweep import REPOSITORY, run

TARGETS, IMAGES = ("Sketch", "Cats", "Sea"), 54
EXPERIMENTS = ["base", *(f"esd/{target}" for target in TARGETS)]
FLAGS = ["--methods", "esd", "--flags=steps=40 batch=2 walk=3 size=16 lr=0.05"]
PATIENCE = 900  # seconds; each wait is a few when the machine has nothing else to do

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """File of a protocol whose answer sets take two blocks."""
    p = replace(
        protocol.load("mini"), themes=("Rust", "Sketch", "Winter"), objects=("Cats", "Sea", "Trees"),
        targets=TARGETS, seeds=tuple(range(6)), steps=5, fid_images=(1, 2),
    )  # fmt: skip
    content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(p).items() if k != "name"}
    path = tmp_path_factory.mktemp("protocol") / "world.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return str(path)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, tiny_sd, world):
    """The sweep that nothing disturbs, on this machine."""
    root = tmp_path_factory.mktemp("quiet")
    code, text = run(root, world, tiny_sd, *FLAGS)
    assert code == 0, text
    return root


def say(text):
    print(f"{time.strftime('%X')} {text}", flush=True)


def table(root, *flags):
    """The final table as CSV, measured seconds and memory aside."""
    words = [sys.executable, "-m", "evaluation.tables", root, "--format", "csv", *flags]
    made = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    rows, out = list(csv.DictReader(io.StringIO(made.stdout))), io.StringIO()
    kept = [name for name in rows[0] if not name.startswith(("seconds", "memory"))]
    writer = csv.DictWriter(out, kept, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue() + made.stderr.replace(str(root), "ROOT")


def pictures(root):
    """Finished files: a kill while one is written leaves its temporary, whose name begins with a dot."""
    return {path.relative_to(root): path.read_bytes() for path in root.glob("**/answers/[!.]*.png")}


def drawn(answers):
    """Images in finished files now, and images drawn in all."""
    log = answers / "sampling.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return len(list(answers.glob("[!.]*.png"))), sum(json.loads(line)["images"] for line in lines)


def half_drawn(root, experiments):
    """The first of them with some of its images there and some not, as soon as there is, and their number."""

    def look():
        counts = {name: drawn(root / name / "answers")[0] for name in experiments}
        return next(((name, count) for name, count in counts.items() if 0 < count < IMAGES), None)

    return slurm_node.wait(look, PATIENCE, "an answer set to be half drawn")


def same_as(quiet, root):
    expected, made = pictures(quiet), pictures(root)
    assert len(expected) == len(EXPERIMENTS) * IMAGES and made.keys() == expected.keys()
    assert not [str(path) for path in expected if made[path] != expected[path]]
    for name in EXPERIMENTS:
        answers = root / name / "answers"
        assert read_predictions(answers)[0] == read_predictions(quiet / name / "answers")[0]
        assert drawn(answers)[1] <= IMAGES  # no finished block was drawn again
    for flags in ([], ["--per-target"]):
        assert table(root, *flags) == table(quiet, *flags)


def test_slurm_with_a_kill_a_drain_and_a_preemption_ends_in_the_same_table(quiet, tiny_sd, world, tmp_path):
    if reason := slurm_node.why_not():
        pytest.skip(f"no SLURM here: {reason}")
    root, ended = tmp_path / "runs", []
    flags = [*FLAGS, *"--executor slurm --max-concurrent 2 --gpus-per-job 0 --cpus-per-job 1".split()]
    sweep = threading.Thread(target=lambda: ended.append(run(root, world, tiny_sd, *flags)), daemon=True)
    with slurm_node.node() as host:
        sweep.start()
        _, count = half_drawn(root, ["base"])
        number = jobs.latest_job(root / ".sweep/base")["id"]
        slurm_node.preempt(number)
        say(f"base, job {number}: preempted by USR2 with {count} of {IMAGES} images; requeued")
        lost, count = half_drawn(root, EXPERIMENTS[1:])
        number = jobs.latest_job(root / ".sweep" / lost)["id"]
        slurm_node.kill(number)
        say(f"{lost}, job {number}: killed with {count} of {IMAGES} images")
        slurm_node.call("scontrol", "update", f"NodeName={host}", "State=DRAIN", "Reason=test")
        say(f"node drained; squeue: {slurm_node.call('squeue', '-h', '-r', '-o', '%i %t').split()}")
        time.sleep(5)
        slurm_node.call("scontrol", "update", f"NodeName={host}", "State=RESUME")
        say("node resumed")
        sweep.join(PATIENCE)
        code, text = ended[0]
        say(f"sweep ended with code {code}:\n{text}")
        assert code == 2 and "1 experiments failed; run this again to retry" in text
        assert f"{lost}: failed, log" in text and "base: finished" in text
        code, text = run(root, world, tiny_sd, *flags)
        say(f"sweep run again, ended with code {code}:\n{text}")
    assert code == 0 and f"{lost}: finished" in text and text.count(": finished") == 1
    same_as(quiet, root)
    say(f"the table equals the local executor's byte for byte:\n{table(root)}")


def test_a_local_sweep_killed_in_the_middle_goes_on_to_the_same_bytes(quiet, tiny_sd, world, tmp_path):
    """The trainings are those of the quiet sweep, so that even the records quoted in predictions agree."""
    root = tmp_path / "runs"
    shutil.copytree(quiet, root)
    for name in EXPERIMENTS[:3]:
        shutil.rmtree(root / name / "answers")
        shutil.rmtree(root / ".sweep" / name)
    words = ["--out", root, "--protocol", world, "--data", "mini", "--model", tiny_sd, "--workers", 2, *FLAGS]
    with subprocess.Popen(
        [sys.executable, "-m", "scripts.sweep", *map(str, words)], cwd=REPOSITORY, stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        lost, count = half_drawn(root, EXPERIMENTS[:3])
        tree = [process, *psutil.Process(process.pid).children(recursive=True)]
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGKILL)
    say(f"sweep and its {len(tree) - 1} processes killed with {count} of {IMAGES} images of {lost}")
    assert not (root / lost / "answers" / PREDICTIONS).exists()
    code, text = run(root, world, tiny_sd, *FLAGS)
    assert code == 0, text
    same_as(quiet, root)
    for name in EXPERIMENTS:
        before, after = (folder / name / "answers" / PREDICTIONS for folder in (quiet, root))
        assert before.read_bytes() == after.read_bytes()
    count = len(EXPERIMENTS)
    say(f"resumed: {count} prediction files and {count * IMAGES} images are the same bytes")
