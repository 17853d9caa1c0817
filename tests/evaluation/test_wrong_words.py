"""Wrong words are answered before anything slow is imported, and what a flag may be is checked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evaluation

ROOT = Path(evaluation.__file__).parent
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if re.search("^@command$", path.read_text(), re.MULTILINE)
)


def answered(module, *words, **environment):
    """-> exit code and error messages."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT.parent)} | environment,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_flag_is_answered_without_torch(module, tmp_path):
    for slow in ("torch", "transformers", "matplotlib"):
        (tmp_path / f"{slow}.py").write_text("raise ImportError('slow')")
    code, said = answered(module, "--no-such-flag", PYTHONPATH=f"{tmp_path}:{ROOT.parent}")
    assert code == 2 and "Traceback" not in said and "error: " in said


@pytest.mark.parametrize(
    "module, words, named",
    [
        ("prepare", "d o --size 0", "--size"),
        ("prepare", "d o --size 32.5", "--size"),
        ("prepare", "d o --workers -1", "--workers"),
        ("predict", "nowhere --batch 0", "--batch"),
        ("predict", "nowhere", "nowhere"),
        ("predict", "nowhere --device tpu", "--device"),
        ("fid", "nowhere --data mini", "nowhere"),
        ("mini_canvas", "o --per-object 0", "--per-object"),
        ("mini_canvas", "o --seed -1", "--seed"),
        ("mini_canvas", "o --sheet s.foo", "--sheet"),
        ("contact_sheet", "--base b --answers a --out s.foo", "--out"),
        ("contact_sheet", "--base b --answers a --out s.png --objects 0", "--objects"),
        ("check", "mini:abc", "mini:abc"),
        ("tables", "runs --explain esd/Sketch", "--explain"),
        ("foreign", "r/m/t --seconds nan", "--seconds"),
        ("train_classifier", "--task style --out j.safetensors --data mini:x", "--data"),
        ("train_classifier", "--task style --out j.safetensors --data nowhere", "--data"),
        ("train_classifier", "--task style --out j.pth", "--out"),
        ("train_classifier", "--task style --out j.safetensors init=nowhere", "init"),
    ],
)
def test_what_a_flag_may_be(module, words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = getattr(__import__(f"evaluation.{module}"), module)
    with pytest.raises(SystemExit) as stop:
        command.main(words.split())
    assert stop.value.code == 2 and named in capsys.readouterr().err.splitlines()[-1]
    assert not [*tmp_path.iterdir()]
