"""Answer sets: blocks, claims, manifest."""

import json

import pytest
from PIL import Image

from evaluation.answers import claims
from evaluation.answers.answer_set import AnswerSet, grid, protocol_of, read_manifest
from evaluation.core.errors import UserError
from tests import synthetic

P = synthetic.protocol()  # 24 cells


def opened(folder, block=5, **changes):
    wanted = {"protocol": P, "model": "m" * 16, "run": {"method": "esd"}} | changes
    return AnswerSet(folder, **wanted, block=block)


def draw(answers, cells):
    for cell in cells:
        Image.new("RGB", (2, 2)).save(answers.path(cell))


def test_two_workers_share_all_blocks_and_draw_none_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 1)  # at last one waits for the other, in this one thread
    first, second = opened(tmp_path), opened(tmp_path)
    ones, others, seen = first.todo(), second.todo(), []
    for _ in range(10):  # both hold a block at any time
        held = [next(worker, None) for worker in (ones, others)]
        held = [block for block in held if block]
        for claim, _, cells in held:
            seen.append(claim.path.name)
            draw(first, cells)
    assert sorted(seen) == [f".claim-{number}" for number in range(5)]
    assert not first.missing() and not list(tmp_path.glob(".claim*"))


def test_a_block_that_failed_is_free_again(tmp_path):
    answers = opened(tmp_path)
    with pytest.raises(RuntimeError):
        for _ in answers.todo():
            raise RuntimeError
    del _
    assert not list(tmp_path.glob(".claim*"))
    assert next(answers.todo())[0].path.name == ".claim-0"


def test_a_block_with_one_missing_image_is_done_whole(tmp_path):
    answers = opened(tmp_path)
    cells = grid(P)
    draw(answers, cells)
    answers.path(cells[7]).unlink()
    assert [block for _, _, block in answers.todo()] == [cells[5:10]]
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
    same = synthetic.protocol(name="other", targets=("Monet",))  # pixels
    opened(tmp_path, protocol=same, made_with={"device": "cpu"})
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


def test_a_set_of_no_blocks_is_damaged(tmp_path):
    opened(tmp_path)
    manifest = read_manifest(tmp_path)
    for block in (0, -1, "5", None):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"block": block}))
        with pytest.raises(UserError, match=r"manifest\.json: damaged"):
            opened(tmp_path)
