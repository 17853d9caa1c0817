"""Pools end with their command: what waits is dropped, no worker lives on."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from evaluation.core.pools import processes, threads

SCRIPT = """
import sys, time
from evaluation.core.errors import command
from evaluation.core.pools import processes, threads

@command
def main(argv=None):
    with {"processes": processes, "threads": threads}[sys.argv[1]](2) as pool:
        jobs = [pool.submit(time.sleep, float(sys.argv[2])) for _ in range(200)]
        print("works", flush=True)
        for job in jobs:
            job.result()

main()
"""


@pytest.mark.parametrize("kind, seconds", [("processes", 60), ("threads", 0.2)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_leaves_no_worker(tmp_path, kind, seconds, number):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, tmp_path / "script.py", kind, str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, start_new_session=True) as process:
        assert process.stdout.readline() == "works\n"
        time.sleep(0.5)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) == 2 * (kind == "processes")
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 2
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -9)
    assert "Traceback" not in said
    assert not psutil.wait_procs(workers, timeout=2)[1]


@pytest.mark.parametrize("pool", [processes, threads])
def test_work_is_done_and_errors_arrive(pool):
    with pool(2) as workers:
        assert list(workers.map(abs, [-1, -2])) == [1, 2]
    with pytest.raises(ZeroDivisionError), pool(2) as workers:
        workers.submit(divmod, 1, 0).result()


def test_a_worker_whose_parent_hangs_up_says_nothing():
    """A thread that serves tensors, interrupted in the middle of a word; other errors are printed."""
    code = """
import os, signal, sys
from evaluation.core import pools
pools._begin(os.getppid())
sys.excepthook(*(lambda e: (type(e), e, None))(ConnectionResetError(104, "reset")))
sys.excepthook(*(lambda e: (type(e), e, None))(ValueError("odd")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "ValueError: odd\n"
