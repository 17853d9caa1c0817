"""Answer sets: blocks, claims, manifest."""

import fcntl
import json
import os
import socket
import subprocess
import time

import pytest
from PIL import Image

from evaluation.answers.answer_set import AnswerSet, grid, protocol_of, read_manifest
from evaluation.answers.claims import STALE_SECONDS
from evaluation.core.errors import UserError
from tests import synthetic

P = synthetic.protocol()  # 24 cells


def opened(folder, block=5, **changes):
    wanted = {"protocol": P, "model": "m" * 16, "run": {"method": "esd"}} | changes
    return AnswerSet(folder, **wanted, block=block)


def draw(answers, cells):
    for cell in cells:
        Image.new("RGB", (2, 2)).save(answers.path(cell))


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_two_workers_share_all_blocks_and_draw_none_twice(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    ones, others, seen = first.todo(), second.todo(), []
    for _ in range(10):  # both hold a block at any time
        held = [next(worker, None) for worker in (ones, others)]
        held = [block for block in held if block]
        assert len({number for number, _ in held}) == len(held)
        for number, cells in held:
            seen.append(number)
            draw(first, cells)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert not first.missing() and not list(tmp_path.glob(".claim*"))


def test_a_block_that_failed_is_free_again(tmp_path):
    answers = opened(tmp_path)
    with pytest.raises(RuntimeError):
        for _ in answers.todo():
            raise RuntimeError
    del _
    assert not list(tmp_path.glob(".claim*"))
    assert next(answers.todo())[0] == 0


@pytest.mark.parametrize(
    "claim, age, free",
    [
        (lambda: f"{socket.gethostname()} {dead_pid()}", 0, True),
        (lambda: f"{socket.gethostname()} {os.getppid()}", 0, False),
        (lambda: "elsewhere 7", 10, False),
        (lambda: "elsewhere 7", STALE_SECONDS + 10, True),
        (lambda: "", 5, False),  # being written
        (lambda: "", 100, True),  # its writer died in between
    ],
)
def test_claims_of_others(tmp_path, claim, age, free):
    answers = opened(tmp_path)
    path = tmp_path / ".claim-0"
    path.write_text(claim())
    os.utime(path, (time.time() - age,) * 2)
    work = answers.todo()
    assert next(work)[0] == (0 if free else 1)


def test_a_claim_taken_over_by_a_faster_process_is_left_alone(tmp_path, monkeypatch):
    answers, path = opened(tmp_path), tmp_path / ".claim-0"
    faster = f"{socket.gethostname()} {os.getppid()}"
    path.write_text(f"{socket.gethostname()} {dead_pid()}")

    def late(*_):  # between the look at the dead claim and its removal
        monkeypatch.undo()
        path.write_text(faster)

    monkeypatch.setattr(fcntl, "flock", late)
    work = answers.todo()
    assert next(work)[0] == 1
    assert path.read_text() == faster and len(list(tmp_path.glob(".claim*"))) == 2


def test_a_block_with_one_missing_image_is_done_whole(tmp_path):
    answers = opened(tmp_path)
    cells = grid(P)
    draw(answers, cells)
    answers.path(cells[7]).unlink()
    assert list(answers.todo()) == [(1, cells[5:10])]
    assert answers.missing() == [cells[7]]


def test_block_size_of_the_first_process_is_kept(tmp_path):
    opened(tmp_path, block=5, made_with={"device": "cpu"})
    assert opened(tmp_path, block=2, made_with={"device": "NVIDIA H100"}).block == 5
    assert read_manifest(tmp_path)["made_with"] == {"device": "cpu"}


def test_manifest(tmp_path):
    opened(tmp_path)
    assert protocol_of(tmp_path) == P
    manifest = read_manifest(tmp_path)
    assert manifest["model"] == "m" * 16 and manifest["block"] == 5
    manifest.pop("made_with")  # as older versions wrote it
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    opened(tmp_path, protocol=synthetic.protocol(name="other", targets=("Monet",)))  # the same pixels
    for key, other in {
        "protocol": synthetic.protocol(guidance=1.0),
        "model": "n" * 16,
        "run": {"method": "uce"},
    }.items():
        with pytest.raises(UserError, match=f"another {key}"):
            opened(tmp_path, **{key: other})
    with pytest.raises(UserError, match="another run"):
        opened(tmp_path, run=None)
    manifest["protocol"]["shift"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: its protocol has 'shift'"):
        protocol_of(tmp_path)
    with pytest.raises(UserError, match=r"no manifest\.json"):
        read_manifest(tmp_path / "nowhere")


def test_grid():
    cells = grid(P)
    assert len(set(cells)) == len(cells) == len(P.themes) * len(P.objects) * len(P.seeds)
    assert cells[0] == (P.themes[0], P.objects[0], P.seeds[0])
