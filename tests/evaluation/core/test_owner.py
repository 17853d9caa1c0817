"""Who is alive, and a folder for one process."""

import os
import subprocess
import sys

import pytest

from evaluation.core import owner
from evaluation.core.errors import UserError


def test_a_process_knows_itself_and_its_text():
    me = owner.myself()
    assert me.pid == os.getpid() and all(me)
    assert owner.parse(me.text()) == me and owner.alive(me) is True


@pytest.mark.parametrize("text", ["", "word", "host x", "host -1", " 7", "\0", "host\n7"])
def test_texts_that_name_no_process(text):
    assert owner.parse(text) is None


@pytest.mark.parametrize(
    "changes, alive",
    [
        ({"started": "1"}, False),  # a number used again
        ({"pid": 2**22 + 1}, False),
        ({"started": ""}, None),
        ({"host": "elsewhere"}, None),
        ({"boot": "b"}, None),
        ({"space": "7"}, None),
    ],
)
def test_whether_a_process_lives(changes, alive):
    assert owner.alive(owner.myself()._replace(**changes)) is alive


def test_a_child_is_another_process_and_dies():
    code = "from evaluation.core import owner; print(owner.myself().text())"
    text = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    child = owner.parse(text)
    assert child[3:] == owner.myself()[3:] and owner.alive(child) is False


def test_alone(tmp_path):
    code = (
        "import sys\nfrom evaluation.core.owner import alone\nfrom evaluation.core.errors import UserError\n"
    )
    code += "try:\n    with alone(sys.argv[1]): print('in', flush=True); sys.stdin.read()\n"
    code += "except UserError as error: print(error)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], **pipes) as other:
        assert other.stdout.readline() == "in\n"
        refusal = pytest.raises(UserError, match=r"--out .*run: another process is at work here; wait")
        with refusal, owner.alone(tmp_path / "run"):
            pass
        other.kill()
    with owner.alone(tmp_path / "run"):  # whose lock went with it
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True)
        assert "another process" in done.stdout
    assert not [*(tmp_path / "run").iterdir()]


def test_a_lock_that_its_owner_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    flock, path = owner.fcntl.flock, tmp_path / ".lock"

    def late(lock, how):
        monkeypatch.undo()
        path.unlink()
        flock(lock, how)

    monkeypatch.setattr(owner.fcntl, "flock", late)
    with owner.alone(tmp_path):
        assert path.exists()
        assert owner._open_locked(path) is None
