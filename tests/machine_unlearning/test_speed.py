"""SPEED's free space and what its edit must not change."""

import json

import pytest
import torch

from machine_unlearning.core import cli, embeddings
from machine_unlearning.core.prompts import edit_prompts, world_prompts
from machine_unlearning.speed import train
from machine_unlearning.speed.retain import free_space, retained, weakest
from machine_unlearning.speed.train import edited, invariants, moments, start_rows, token_rows, unprotected
from tests import tiny

D, OUT = 12, 7


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


@pytest.fixture
def problem():
    torch.manual_seed(0)

    def rows(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    T, A = moments(rows(3, 2, D), rows(3, 2, D))
    return rows(OUT, D), T, A, rows(5, D), rows(D, 4)


def words(model, target, out, *more):
    names = ["--target", target, "--model", str(model), "--out", str(out), "--device", "cpu"]
    return [*names, "threshold=1", *more]  # of a model with random weights, little is free


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_minimises_its_least_squares_within_the_free_space(problem, scale):
    """The gradient of mean |V c - W a|^2 + s |V - W|^2 vanishes along every step that P allows and K does not
    forbid."""
    W, T, A, R, K = problem
    U = free_space(R.T @ R / len(R), 1e-9)
    assert U.shape == (D, D - len(R))
    new = edited(W, T, A, U, K, scale, 0.0)
    gradient = new @ T - W @ A + scale * (new - W)
    allowed = U @ torch.linalg.svd(K.T @ U).Vh[4:].T  # in U, across K
    assert (gradient @ allowed).abs().max() < 1e-9 < (gradient @ U).abs().max()
    assert ((new - W) @ K).abs().max() < 1e-9
    torch.testing.assert_close(R @ new.T, R @ W.T)  # retained rows keep their values
    assert (new - W).abs().max() > 1e-3


def test_strength_and_softened_invariants(problem):
    W, T, A, R, K = problem
    U = free_space(R.T @ R / len(R), 1e-9)
    moved = [(edited(W, T, A, U, K, scale, 0.0) - W).norm() for scale in (0.1, 1.0, 100.0)]
    assert moved[0] > moved[1] > moved[2]
    broken = [((edited(W, T, A, U, K, 1.0, lamb) - W) @ K).norm() for lamb in (0.0, 0.1, 10.0)]
    assert broken[0] < 1e-9 < broken[1] < broken[2]
    twice = torch.cat([K, K[:, :2]], dim=1)  # invariants that say the same again
    torch.testing.assert_close(edited(W, T, A, U, twice, 1.0, 0.0), edited(W, T, A, U, K, 1.0, 0.0))
    torch.testing.assert_close(edited(W, T, T, U, K, 1.0, 0.0), W)  # anchors are the targets themselves


def test_copies_are_as_if_made(problem):
    W, T, A, _, _ = problem
    R, z = torch.randn(40, D).double(), torch.randn(6, 40).double()
    E, v = W @ unprotected(T, A), weakest(W)
    torch.testing.assert_close((W @ v).norm(), torch.linalg.svdvals(W)[-1])
    for filtered in (True, False):
        norms = (R @ E.T).norm(dim=1)
        passed = norms > norms.mean() if filtered else norms >= 0
        copies = (R[None] + z[..., None] * v)[:, passed].flatten(0, 1)
        moved = (copies @ E.T).norm(dim=1)
        Z = torch.cat([R[passed], copies[moved > moved.mean()]])
        kept = retained(R, E, v, z, filtered)
        assert kept.count == len(Z) and torch.equal(kept.passed, passed)
        torch.testing.assert_close(kept.moment, Z.T @ Z / len(Z))
    alone = retained(R, E, v, z[:0], False)
    torch.testing.assert_close(alone.moment, R.T @ R / len(R))


def test_a_wide_matrix_has_the_same_lengths(problem):
    _, T, A, R, _ = problem
    E = torch.randn(3 * D, D).double() @ unprotected(T, A)
    kept = retained(R, E, R[0], torch.zeros(1, len(R)).double(), True)
    norms = (R @ E.T).norm(dim=1)
    assert torch.equal(kept.passed, norms > norms.mean())


def test_invariants():
    """Three clusters are found from any start; a centre without rows stays where it is."""
    torch.manual_seed(1)
    places = 9 * torch.eye(3, 5).double()
    empty = torch.cat([torch.ones(1, 5).double(), *(place + 0.1 * torch.randn(4, 5) for place in places)])
    for start in ([1, 5, 9], [1, 2, 12]):
        K = invariants(empty, start)
        assert K.shape == (5, 4) and torch.equal(K[:, 0], empty[0])
    centres = invariants(empty, [1, 5, 9]).T[1:]
    torch.testing.assert_close(centres, empty[1:].view(3, 4, 5).mean(1))
    same = invariants(torch.ones(6, 5).double(), [1, 3, 5])
    assert torch.equal(same, torch.ones(5, 4).double())


def test_start_of_the_centres():
    generator = torch.Generator().manual_seed(0)
    assert start_rows(77, "spread", generator) == [1, 38, 76]
    drawn = {tuple(start_rows(9, "random", generator)) for _ in range(50)}
    assert len(drawn) > 10 and all(len({*rows}) == 3 and {*rows} <= {*range(1, 9)} for rows in drawn)


def test_rows_of_prompts():
    text = torch.arange(12.0).view(2, 6, 1)
    assert torch.equal(token_rows(text, [0, 3], "all"), text[:, 1:])
    assert token_rows(text, [0, 3], "last").flatten().tolist() == [0, 9]


def test_prompts_of_both_variants(tiny_sd):
    def parsed(target, *more):
        return cli.parse("", train.__file__, words(tiny_sd, target, "o", *more))

    args = parsed("Sketch")
    prompts, kept = world_prompts(args)
    assert len(prompts) == 111 and sum(kept) == 101
    assert edit_prompts(args)["A Cats image in Sketch style."] == "A Cats image in Photo style."
    published = parsed("Sketch", "--variant", "published")
    prompts, kept = world_prompts(published)
    assert edit_prompts(published) == {"Sketch": "art"}
    assert len(prompts) == 21 and [p for p, k in zip(prompts, kept) if not k] == ["Sketch"]
    assert "Neon Lines" in prompts and "Photo" not in prompts
    published = parsed("Cats", "--variant", "published")
    assert edit_prompts(published) == {"Cats": " "}
    prompts, kept = world_prompts(published)
    assert [p for p, k in zip(prompts, kept) if not k] == ["Cats"]


@pytest.fixture
def seen(monkeypatch):
    """What every run retained, and the scale of its edit."""
    calls = []
    for name, argument in (("retained", 0), ("edited", 5)):
        real = getattr(train, name)
        monkeypatch.setattr(train, name, lambda *a, real=real, i=argument: calls.append(a[i]) or real(*a))
    return calls


def test_kept_prompts_are_retained_but_not_the_empty_one(tiny_sd, tmp_path, seen):
    train.main(words(tiny_sd, "Sketch", tmp_path / "run"))
    sd = tiny.load_sd(tiny_sd)
    prompts, kept = world_prompts(cli.parse("", train.__file__, words(tiny_sd, "Sketch", "o")))
    expected = sd.embed([p for p, k in zip(prompts[1:], kept[1:]) if k])[:, 1:].flatten(0, 1)
    torch.testing.assert_close(seen[0], expected)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(line["passed"] < len(expected) < line["rows"] + len(expected) for line in log)
    assert seen[1] == 0.3
    train.main(words(tiny_sd, "Sketch,Cats,Rust", tmp_path / "three"))
    assert seen[-1] == pytest.approx(0.1)  # of T and A each target is a third


def test_a_sequence_retains_nothing_of_what_was_forgotten(tiny_sd, tmp_path, seen):
    train.main(words(tiny_sd, "Sketch", tmp_path / "first"))
    one = len(seen[0])
    train.main(words(tiny_sd, "Cats", tmp_path / "second", "--from", str(tmp_path / "first")))
    assert one == 100 * 31 and len(seen[-2]) == 90 * 31
    after = [tiny.weights_of(tiny_sd, tmp_path / name) for name in ("first", "second")]
    assert tiny.changed(*after) == {n for n in after[0] if ".attn2.to_v." in n}


@pytest.mark.parametrize("maps, layers", [("keys", ["to_k"]), ("both", ["to_k", "to_v"])])
def test_maps(maps, layers, tiny_sd, tmp_path):
    train.main(words(tiny_sd, "Cats", tmp_path / "run", f"maps={maps}"))
    states = tiny.weights_of(tiny_sd), tiny.weights_of(tiny_sd, tmp_path / "run")
    ends = tuple(f".attn2.{layer}.weight" for layer in layers)
    assert tiny.changed(*states) == {name for name in states[0] if name.endswith(ends)}


def test_nothing_free_is_told(tiny_sd, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        train.main([*words(tiny_sd, "Cats", tmp_path / "run")[:-1], "threshold=1e-12", "filter=false"])
    assert exit.value.code == 2
    assert "leaves no direction free to edit; make it larger" in capsys.readouterr().err
