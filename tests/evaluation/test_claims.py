"""Many processes on one folder: no block is made twice, whatever was left behind."""

import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time

import pytest

from evaluation.answers import claims
from evaluation.core.errors import UserError

WORKERS = 6


def gone() -> str:
    """The claim of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return f"{socket.gethostname()} {process.pid}"


def make_all(folder, blocks, started):
    random.seed(os.getpid())
    started.wait()
    for key, block in claims.claimed(folder, blocks, lambda block: (folder / f"{block}.made").exists()):
        with open(folder / "log", "a") as log:
            log.write(f"{key}\n")
        time.sleep(0.01)
        (folder / f"{block}.made").touch()


def test_claims_of_a_killed_pool_are_taken_over_by_one_worker_each(tmp_path, monkeypatch):
    """All workers find the same dead claims at the same time, and act on what they saw a moment later."""
    look = claims._abandoned

    def slowly(path):
        seen = look(path)
        time.sleep(random.random() / 200)
        return seen

    monkeypatch.setattr(claims, "_abandoned", slowly)
    processes = multiprocessing.get_context("fork")
    blocks, claim, started = [(n, n) for n in range(60)], gone(), processes.Event()
    claims.agree(tmp_path, {}, "blocks")
    for key, _ in blocks:
        (tmp_path / f".claim-{key}").write_text(claim)
    pool = [processes.Process(target=make_all, args=(tmp_path, blocks, started)) for _ in range(WORKERS)]
    for process in pool:
        process.start()
    started.set()
    for process in pool:
        process.join(60)
    assert [process.exitcode for process in pool] == WORKERS * [0]
    made = sorted(map(int, (tmp_path / "log").read_text().split()))
    assert made == [key for key, _ in blocks]
    assert not list(tmp_path.glob(".*"))


def test_of_two_processes_the_first_decides(tmp_path, monkeypatch):
    """Both find no manifest."""
    late = claims._write_first

    def after_another(path, content):
        late(path, content | {"block": 5})
        late(path, content)

    monkeypatch.setattr(claims, "_write_first", after_another)
    assert claims.agree(tmp_path, {"run": "a"}, "answers", block=2) == {"run": "a", "block": 5}
    with pytest.raises(UserError, match="answers of another run"):
        claims.agree(tmp_path, {"run": "b"}, "answers", block=2)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", link)
    assert claims.agree(tmp_path, {"run": "a"}, "answers") == {"run": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
