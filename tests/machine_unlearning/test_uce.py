"""UCE's closed form against the least-squares problem it solves."""

import pytest
import torch

from diffusion_model_finetuning.core.sd import load_sd
from evaluation import canvas
from evaluation.mini import dataset as mini
from machine_unlearning.core import cli, embeddings
from machine_unlearning.core.closed_form import Pair, align, edited, gram, last_content, values
from machine_unlearning.core.prompts import edit_prompts
from machine_unlearning.uce import train

D, OUT = 6, 5


@pytest.fixture
def problem():
    torch.manual_seed(0)

    def rows(n):
        return torch.randn(n, D, dtype=torch.float64)

    return torch.randn(OUT, D, dtype=torch.float64), [Pair(rows(3), rows(3)), Pair(rows(2), rows(2))], rows(4)


@pytest.mark.parametrize("technique", ["replace", "tensor"])
@pytest.mark.parametrize("lamb, erase, preserve", [(1.0, 0.05, 0.1), (10.0, 1.0, 0.0), (0.3, 2.0, 5.0)])
def test_minimises_its_least_squares(problem, technique, lamb, erase, preserve):
    """|sqrt(a) (C W' - V)|^2 + |sqrt(b) (P W' - P W)|^2 + |sqrt(lamb) (W' - W)|^2, stacked, by QR."""
    W, pairs, kept = problem
    targets = []
    for edit, guide in pairs:
        new, old = guide @ W.T, edit @ W.T
        if technique == "tensor":  # what is left of new when the flattened old is projected out
            flat = old.flatten()
            new = (new.flatten() - flat * (flat @ new.flatten()) / (flat @ flat)).view_as(new)
        targets.append(new)
    A = torch.cat(
        [*(erase**0.5 * pair.edit for pair in pairs), preserve**0.5 * kept, lamb**0.5 * torch.eye(D)]
    )
    B = torch.cat([*(erase**0.5 * v for v in targets), preserve**0.5 * kept @ W.T, lamb**0.5 * W.T])
    expected = torch.linalg.lstsq(A, B).solution.T
    solved = edited(W, pairs, gram(kept), lamb, erase, preserve, technique)
    torch.testing.assert_close(solved, expected)


def test_limits(problem):
    W, pairs, kept = problem
    keep = gram(kept)
    torch.testing.assert_close(edited(W, pairs, keep, 1.0, 0.0, 0.1, "replace"), W)  # nothing to erase
    erased = edited(W, pairs[:1], keep, 1e-9, 1.0, 0.0, "replace")
    torch.testing.assert_close(pairs[0].edit @ erased.T, pairs[0].guide @ W.T, rtol=1e-5, atol=1e-5)
    held = edited(W, pairs, keep, 1.0, 1.0, 1e9, "replace")
    torch.testing.assert_close(kept @ held.T, kept @ W.T, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(held, W, atol=1e-3)
    same = [Pair(pair.edit, pair.edit) for pair in pairs]
    torch.testing.assert_close(edited(W, same, keep, 1.0, 1.0, 0.1, "replace"), W)


def test_tensor_values_are_orthogonal_to_the_old_ones(problem):
    W, (pair, _), _ = problem
    assert abs((values(W, pair, "tensor") * (pair.edit @ W.T)).sum()) < 1e-9


def test_gram_in_chunks():
    rows = torch.randn(50, D)
    expected = rows.double().T @ rows.double()
    for chunk in (7, 8192):
        torch.testing.assert_close(gram(rows, chunk), expected, rtol=1e-5, atol=1e-5)
    assert gram(rows).dtype == torch.float64


@pytest.mark.parametrize("n_edit, n_guide", [(2, 5), (5, 2), (3, 3)])
def test_align(n_edit, n_guide):
    edit, guide = torch.arange(10.0).view(10, 1), torch.arange(10.0).view(10, 1) + 100
    pair = align(edit, guide, n_edit, n_guide, "all")
    assert len(pair.edit) == len(pair.guide) == 10 - max(n_edit, n_guide)
    assert (pair.edit[0], pair.guide[0]) == (n_edit, 100 + n_guide)
    assert (pair.edit.diff(dim=0) == 1).all() and max(pair.edit[-1], pair.guide[-1] - 100) == 9
    last = align(edit, guide, n_edit, n_guide, "last")
    assert (last.edit.tolist(), last.guide.tolist()) == ([[n_edit]], [[100.0 + n_guide]])


def test_last_content_token(tiny_sd):
    sd = load_sd(tiny_sd)
    prompts = ["", "Rust style", "A Cats image in Van Gogh style."]
    for prompt, number in zip(prompts, last_content(sd, prompts), strict=True):
        ids = sd.tokens([prompt])[0]
        assert ids[number + 1] == sd.tokenizer.eos_token_id
        assert ids[0] == sd.tokenizer.bos_token_id
        word = sd.tokenizer.decode(ids[number]).strip()
        assert word == (prompt.lower().replace(".", " .").split() or ["<|startoftext|>"])[-1]


def words(model, target, out, *more):
    return ["--target", target, "--model", str(model), "--out", str(out), "--device", "cpu", *more]


def test_without_a_guide_the_wording_speaks_of_what_takes_the_place(tiny_sd):
    edits = ["edit=['A {object}','A {object} image in {theme} style.']", "guide=null"]
    prompts = edit_prompts(cli.parse("", train.__file__, words(tiny_sd, "Cats", "o", *edits)))
    assert len(prompts) == 12 and prompts["A Cats"] == "A Fishes"
    assert prompts["A Cats image in Sketch style."] == "A Fishes image in Sketch style."
    prompts = edit_prompts(cli.parse("", train.__file__, words(tiny_sd, "Sketch", "o", *edits)))
    assert prompts["A Cats image in Sketch style."] == "A Cats image in Photo style."


def test_target_s_own_prompts_are_not_preserved(tiny_sd, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(train, "gram", lambda rows: seen.append(rows) or gram(rows))
    train.main(words(tiny_sd, "Sketch", tmp_path / "run"))
    kept = [
        "",
        *(canvas.prompt(t, o) for t in mini.THEMES for o in mini.OBJECTS if t != "Sketch"),
    ]
    torch.testing.assert_close(seen[0], load_sd(tiny_sd).embed(kept).flatten(0, 1))
