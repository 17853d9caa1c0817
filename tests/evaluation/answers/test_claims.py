"""Many processes on one folder: no block is made twice, whatever was left behind."""

import errno
import fcntl
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time

import pytest

from evaluation.answers import claims
from evaluation.core import owner
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
    for _, block in claims.claimed(folder, blocks, lambda block: (folder / f"{block}.made").exists()):
        with open(folder / "log", "a") as log:
            log.write(f"{block}\n")
        time.sleep(0.01)
        (folder / f"{block}.made").touch()


def claim_text(**changes) -> str:
    """A claim of this very process, but for the changes."""
    return owner.myself()._replace(**changes).text()


def test_claims_of_a_killed_pool_are_taken_over_by_one_worker_each(tmp_path, monkeypatch):
    """All workers find the same dead claims at the same time, and act on what they saw a moment later."""
    look = claims.abandoned

    def slowly(path):
        seen = look(path)
        time.sleep(random.random() / 200)
        return seen

    monkeypatch.setattr(claims, "abandoned", slowly)
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


HOST, STALE = socket.gethostname(), claims.STALE_SECONDS + 5


@pytest.mark.parametrize(
    "text, age, taken",
    [
        (gone, 0, True),
        (lambda: f"{HOST} {os.getppid()}", 0, False),  # of an earlier version: the number is all there is
        (lambda: f"{HOST} 1", STALE, True),  # a number used again
        (claim_text, 0, False),
        (claim_text, STALE, True),  # held up: it touches nothing any more
        (lambda: claim_text(started="1"), 0, True),  # a number used again, a moment ago
        (lambda: claim_text(boot="b"), 0, False),  # before a reboot, or another machine of this name
        (lambda: claim_text(boot="b"), STALE, True),
        (lambda: claim_text(space="7"), 0, True),  # another container, in which nothing holds the lock
        (lambda: claim_text(space="7", host="c"), 0, True),
        (lambda: claim_text(space="7", host="c", boot="b"), 0, False),
        (lambda: "elsewhere 7", 10, False),
        (lambda: "elsewhere 7", STALE, True),
        (lambda: "elsewhere 7", -7200, False),
        (lambda: "", 5, False),  # being written
        (lambda: "", 100, True),  # its writer died in between
        (lambda: "", -7200, True),
        (lambda: "\0\0", 3600, True),
        (lambda: f"{HOST} -1", 3600, True),
    ],
)
def test_whose_claims_are_taken_over(tmp_path, monkeypatch, text, age, taken):
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0)
    claims.agree(tmp_path, {}, "blocks")
    path = tmp_path / ".claim-0"
    path.write_text(text())
    os.utime(path, (time.time() - age,) * 2)
    assert [block for _, block in claims.claimed(tmp_path, [(0, "a")], lambda _: False)][:1] == ["a"] * taken
    assert path.exists() is not taken


def test_a_clock_that_is_ahead_delays_no_longer_than_a_right_one(tmp_path):
    path = tmp_path / ".claim-0"
    path.write_text("elsewhere 7")
    os.utime(path, (time.time() + 7200,) * 2)
    assert not claims.abandoned(path)
    assert abs(path.stat().st_mtime - time.time()) < 5


def test_a_living_process_in_another_container_keeps_its_claim(tmp_path):
    path = tmp_path / ".claim-0"
    path.write_text(claim_text(space="7"))
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not claims.abandoned(path)
    assert claims.abandoned(path)


def test_a_claim_that_is_no_file_is_named(tmp_path):
    claims.agree(tmp_path, {}, "blocks")
    (tmp_path / ".claim-0").mkdir()
    with pytest.raises(IsADirectoryError, match="claim-0"):
        list(claims.claimed(tmp_path, [(0, "a")], lambda _: False))


def test_who_was_held_up_and_lost_its_claim_keeps_nothing_of_it(tmp_path, monkeypatch):
    claims.agree(tmp_path, {}, "blocks")
    made, blocks = [], [(0, "a"), (1, "b")]
    slow = claims.claimed(tmp_path, blocks, made.__contains__)
    claim, block = next(slow)
    os.utime(claim.path, (time.time() - STALE,) * 2)
    for other, its in claims.claimed(tmp_path, blocks, made.__contains__):
        assert other.held()
        made.append(its)
        assert not claim.held() or its != block
    assert made == ["a", "b"]
    assert list(slow) == [] and not list(tmp_path.glob(".*"))


def test_the_claim_of_another_is_left_where_it_is(tmp_path):
    """When a process that lost its claim ends."""
    claims.agree(tmp_path, {}, "blocks")
    slow = claims.claimed(tmp_path, [(0, "a")], lambda _: False)
    claim, _ = next(slow)
    claim.path.unlink()
    claim.path.write_text("elsewhere 7")
    slow.close()
    assert claim.path.read_text() == "elsewhere 7"


def test_a_claim_is_touched_while_its_block_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    claims.agree(tmp_path, {}, "blocks")
    for claim, _ in claims.claimed(tmp_path, [(0, "a")], lambda _: False):
        os.utime(claim.path, (1, 1))
        deadline = time.monotonic() + 10
        while claim.path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - claim.path.stat().st_mtime < 10
        break


def test_blocks_of_others_are_waited_for_while_they_get_on(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 5)
    claims.agree(tmp_path, {}, "blocks")
    (tmp_path / ".claim-0").write_text(f"{HOST} {os.getppid()}")
    (tmp_path / ".claim-1").write_text(f"{HOST} {os.getppid()}")
    asked = []

    def done(block):
        """The first is finished by its process after a while; the other's process lets go of its own."""
        asked.append(block)
        if len(asked) == 6:
            (tmp_path / ".claim-1").unlink()
        return block == "a" and len(asked) > 4

    work = claims.claimed(tmp_path, [(0, "a"), (1, "b")], done)
    assert next(work)[1] == "b"


def test_a_full_disk_leaves_no_claim(tmp_path, monkeypatch):
    claims.agree(tmp_path, {}, "blocks")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"claim-0"):
        list(claims.claimed(tmp_path, [(0, "a")], lambda _: False))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


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
