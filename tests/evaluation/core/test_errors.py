"""How a command ends: a sentence for what a user can mend, a traceback for what is ours."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.core.errors import Finished, UserError, brief, command, printable, refused


def ended(error, capsys):
    """-> exit code and error messages of a command that raises this."""

    @command
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "error, sentence",
    [
        (UserError("--x: no"), "error: --x: no\n"),
        (FileNotFoundError(2, "no", "gone.txt"), "error: gone.txt: no such file or folder\n"),
        (OSError(errno.ENOSPC, "full", "big"), "error: big: the disk is full; free some space and run"),
        (OSError(errno.ENOSPC, "full"), "error: output: the disk is full"),
        (OSError(errno.EDQUOT, "quota", "big"), "error: big: your quota of this disk is used up"),
        (OSError(errno.EROFS, "ro", "runs"), "error: runs: lies on a read-only disk; name another"),
        (OSError(errno.EACCES, "no", "runs"), "error: runs: you may not read or write it"),
        (OSError(errno.EISDIR, "dir", "a.png"), "error: a.png: is a folder; a file was expected"),
        (OSError(errno.EISDIR, "dir", ".a~1-2.png", None, "a.png"), "error: a.png: is a folder; a file was"),
        (OSError(errno.ENOTDIR, "no", "p.yaml/x"), "error: p.yaml/x: is a file, or lies below one"),
        (OSError(errno.ELOOP, "loop", "a"), "error: a: is a link that leads to itself"),
        (OSError(errno.ENAMETOOLONG, "long", "xx"), "error: xx: is too long a name"),
        (OSError(errno.ETXTBSY, "Text file busy", "a"), "error: a: Text file busy\n"),
        (MemoryError(), "error: the memory does not suffice (RAM); make the batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "error: the memory does not suffice (CUDA"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "error: the memory does not",
        ),
        (UserError("name \x1b[31mred\x07"), "error: name ?[31mred?\n"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence(capsys, error, sentence):
    code, said = ended(error, capsys)
    assert code == 2 and said.startswith(sentence) and said.count("\n") == 1


def test_an_error_of_cleaning_up_after_a_stop_is_the_stop(capsys):
    """OmegaConf, interrupted while it reads a file, raises one of its own."""

    @command
    def main(argv):
        with refused("a.yaml: not readable", AttributeError):
            try:
                raise KeyboardInterrupt
            finally:
                None.flags  # noqa: B018

    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 130 and capsys.readouterr().err.startswith("stopped; ")


def test_what_is_ours_to_mend_keeps_its_traceback(capsys):
    @command
    def main(argv):
        raise argv

    for error in (KeyError("a"), RuntimeError("shapes"), OSError("without a number")):
        with pytest.raises(type(error)):
            main(error)
    assert main(Finished("done")) is None and capsys.readouterr().out == "done\n"


@settings(derandomize=True, max_examples=60)
@given(st.text())
def test_no_text_moves_the_cursor_or_changes_colours(text):
    left = printable(text)
    assert not [c for c in left if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160]
    assert len(left) == len(text)


SCRIPT = """
import sys, time
from evaluation.core.errors import command, early
early(__name__, lambda: None)
print("imports", flush=True)
time.sleep(float(sys.argv[1]))

@command
def main(argv=None):
    try:
        print("works", flush=True)
        time.sleep(float(sys.argv[2]))
    finally:
        print("cleans up", flush=True)

main()
"""


def started(tmp_path, *words, **more):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen([sys.executable, script, *words], **pipes)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words, line", [(("60", "0"), "imports"), (("0", "60"), "works")])
def test_stopped_commands_say_so_and_clean_up(tmp_path, number, code, words, line):
    process = started(tmp_path, *words)
    assert line in iter(lambda: process.stdout.readline().strip(), "")
    began = time.monotonic()
    process.send_signal(number)
    out, said = process.communicate(timeout=30)
    assert process.returncode == code and time.monotonic() - began < 2
    assert said.startswith("stopped") and said.count("\n") == 1
    assert ("cleans up" in out) is (line == "works")


def test_a_signal_at_the_very_end_changes_nothing(tmp_path):
    """The work is done, and the interpreter takes its time to end."""
    late = "class Late:\n    def __del__(self):\n        os.kill(os.getpid(), sig)\nlate = Late()\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        (tmp_path / "script.py").write_text(
            f"import os\nsig = {int(number)}\n{late}{textwrap.dedent(SCRIPT)}"
        )
        done = subprocess.run([sys.executable, tmp_path / "script.py", "0", "0"], timeout=60)
        assert done.returncode == 0


def test_what_nobody_reads_is_no_error(tmp_path):
    lines = "from evaluation.core.errors import command\n@command\ndef main(argv=None):\n"
    (tmp_path / "script.py").write_text(lines + "    for i in range(99999): print(i)\nmain()\n")
    line = f"{sys.executable} {tmp_path}/script.py | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout.endswith("\n0\n")


def test_output_onto_a_full_disk_is_a_sentence(tmp_path):
    lines = (
        "from evaluation.core.errors import command\n@command\ndef main(argv=None):\n    print(1)\nmain()\n"
    )
    (tmp_path / "script.py").write_text(lines)
    with open("/dev/full", "w") as full:
        words = [sys.executable, tmp_path / "script.py"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: output: the disk is full")


def test_a_broken_pipe_within_the_work_is_an_error(tmp_path):
    """Such as that of a worker; only a reader of the output who leaves is none."""

    @command
    def main(argv):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "worker")

    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2


def test_handlers_of_others_stay(tmp_path):
    """Such as those of a program that calls a command."""

    def own(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        command(lambda argv: os.kill(os.getpid(), signal.SIGTERM))()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "error, text",
    [
        (RuntimeError("bad zip. This is an internal miniz error"), "bad zip"),
        (ValueError(" two\n lines "), "two lines"),
        (EOFError(), "EOFError"),
        (ValueError("x" * 999), "x" * 160),
    ],
)
def test_what_libraries_say_is_told_in_brief(error, text):
    assert brief(error) == text
    with pytest.raises(UserError) as told, refused("a.pth: damaged", type(error)):
        raise error
    assert str(told.value) == f"a.pth: damaged ({text})"
