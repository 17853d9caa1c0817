"""The bash scripts: what they refuse, whose exit code they have, and that a signal reaches what they run."""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from scripts.sweep import __main__ as sweep

ROOT = Path(__file__).parent.parent
# stands for Python: notes its arguments; its code is in the file `code`, or it sleeps until a signal comes
PYTHON = """#!/usr/bin/env bash
trap 'echo int >> log; exit 130' INT
trap 'echo term >> log; exit 143' TERM
echo "$@" >> log
[[ -e code ]] && exit "$(cat code)"
for i in {1..200}; do sleep 0.05; done
"""


@pytest.fixture
def tree(tmp_path):
    for name in ("scripts", "machine_unlearning", "style_transfer", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "own")
    (tmp_path / "scripts").unlink()
    (tmp_path / "own").rename(tmp_path / "scripts")
    installed = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "requirements.lock"))
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / ".venv" / f"installed-{hashlib.sha256(installed).hexdigest()[:12]}").touch()
    return tmp_path


def start(tree, *words, env=None):
    return subprocess.Popen(
        ["bash", *words], cwd=tree, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env
    )


def log(tree):
    return (tree / "log").read_text().splitlines() if (tree / "log").exists() else []


@pytest.mark.parametrize(
    "words, message",
    [
        ("unlearn.sh edd Sketch", "edd: no such method; choose from ca diff_quickfix ediff esd"),
        ("unlearn.sh ../esd Sketch", "../esd: no such method"),
        ("unlearn.sh", "no such method; choose from ca"),
        ("unlearn.sh esd", "name a target at least"),
        ("evaluate.sh esd", "name a method and its targets"),
        ("train_transfer.sh sannet", "sannet: no such method; choose from adaattn"),
        ("transfer.sh", "no such method; choose from adaattn"),
        ("judge_transfer.sh", "name a folder in runs/style_transfer"),
        ("smoke_sd15.sh", "name a method, such as esd"),
        ("tables/probes.sh esd edd", "edd: no such method; choose from ca"),  # before esd is trained
    ],
)
def test_wrong_words(tree, words, message):
    script, *more = words.split()
    done = start(tree, f"scripts/{script}", *more)
    said = done.communicate()[1]
    assert done.returncode == 2 and said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not log(tree)


def test_the_first_failure_ends_a_script_with_its_code(tree):
    (tree / "code").write_text("7")
    assert start(tree, "scripts/unlearn.sh", "esd", "Sketch", "Cats").wait() == 7 and len(log(tree)) == 1
    (tree / "code").write_text("0")
    assert start(tree, "scripts/unlearn.sh", "esd", "Sketch", "Cats").wait() == 0 and len(log(tree)) == 3


def test_without_a_gpu_nothing_is_tested_on_one(tree):
    (tree / "code").write_text("1")
    said = subprocess.run(
        ["bash", "scripts/smoke_gpu.sh"], cwd=tree, capture_output=True, text=True, check=True
    )
    assert said.stdout == "torch finds no GPU here: nothing was tested\n" and len(log(tree)) == 1


@pytest.mark.parametrize(
    "script", [["scripts/quickstart.sh"], ["scripts/unlearn.sh", "uce", "Sketch", "Cats"]]
)
@pytest.mark.parametrize("number, word", [(signal.SIGINT, "int"), (signal.SIGTERM, "term")])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_signals_reach_the_command_once(tree, script, number, word, send):
    """Sent to the script alone, or to its whole group, as a terminal does."""
    process = start(tree, *script)
    while not log(tree):
        time.sleep(0.02)
    send(process.pid, number)
    began = time.monotonic()
    assert process.wait(20) == 128 + number and time.monotonic() - began < 2
    assert len(log(tree)) == 2 and log(tree)[1] == word


def table(tree, *flags):
    """What main.sh says and ends with; every module that it starts, in `log`."""
    given = os.environ | {"MODEL": "model", "DATA": "data", "RUNS": "runs"}
    words = ["bash", "scripts/tables/main.sh", *flags]
    return subprocess.run(words, cwd=tree, env=given, capture_output=True, text=True)


def modules(tree):
    return [line.split()[1] for line in log(tree)]


def test_no_table_without_the_gate(tree):
    """Which is passed once, and by a job where the sweep is one of jobs."""
    (tree / "code").write_text("2")
    assert table(tree).returncode == 2 and modules(tree) == ["machine_unlearning.evaluate"]
    done = table(tree, "--executor", "slurm")
    assert done.returncode == 2 and "in a job with a GPU: bash scripts/tables/gate.sh" in done.stderr
    assert len(modules(tree)) == 1
    (tree / "code").write_text("0")
    assert table(tree).returncode == 0
    assert modules(tree)[2:] == ["evaluation.gate", "scripts.sweep", "evaluation.tables"]
    (tree / "runs/base/answers").mkdir(parents=True)
    (tree / "runs/base/answers/gate.json").touch()
    assert table(tree, "--executor", "slurm").returncode == 0
    assert modules(tree)[5:] == ["scripts.sweep", "evaluation.tables"]


@pytest.mark.parametrize("script", ["mini_main.sh", "main.sh"])
def test_a_table_of_the_targets_named(tree, script):
    """Each is a word of its own to the sweep."""
    (tree / "code").write_text("0")
    python = tree / ".venv/bin/python"
    python.write_text(PYTHON.replace('echo "$@"', 'echo "${@@Q}"'))
    given = os.environ | {"TARGETS": "Sketch Cats", "MODEL": "model", "DATA": "mini", "RUNS": "runs"}
    subprocess.run(["bash", f"scripts/tables/{script}", "esd", "uce"], cwd=tree, env=given, check=True)
    (line,) = [line for line in log(tree) if "scripts.sweep" in line]
    words = sweep.flag_parser().parse_args(shlex.split(line)[2:])
    assert words.targets == ["Sketch", "Cats"] and words.methods == ["esd", "uce"]
    assert words.protocol == {"mini_main.sh": None, "main.sh": "canvas"}[script]  # None: the model's own


def test_probes_of_all_methods_and_targets_named(tree):
    (tree / "code").write_text("0")
    given = os.environ | {"TARGETS": "Sketch Cats", "PROBES": "ladder noise", "RUNS": "runs"}
    subprocess.run(["bash", "scripts/tables/probes.sh", "esd", "uce"], cwd=tree, env=given, check=True)
    probe = "machine_unlearning.probe"
    assert modules(tree) == [
        *["machine_unlearning.esd.train"] * 2, *["machine_unlearning.uce.train"] * 2,
        probe, probe, "evaluation.tables",
    ]  # fmt: skip
    runs = "--runs runs/esd/Sketch runs/uce/Sketch runs/esd/Cats runs/uce/Cats"
    assert [line.split()[2] for line in log(tree)[4:6]] == ["ladder", "noise"]
    assert all(line.endswith(runs) for line in log(tree)[4:6])
    (tree / "log").unlink()
    done = start(tree, "scripts/tables/probes.sh", "esd", env=given | {"PROBES": "ladder noises"})
    assert "error: PROBES: no probe noises; choose from completion" in done.communicate()[1]
    assert done.returncode == 2 and not log(tree)
