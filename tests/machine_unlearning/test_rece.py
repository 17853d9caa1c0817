"""RECE's derivation and epochs: what they solve, what they leave, what a sequence derives."""

import pytest
import torch

from evaluation import canvas
from machine_unlearning.core import cli, embeddings, params
from machine_unlearning.core.closed_form import Pair, edited
from machine_unlearning.core.prompts import edit_prompts, world_prompts
from machine_unlearning.rece import train
from machine_unlearning.rece.train import concept_names, derived, products
from machine_unlearning.uce import train as uce
from tests import tiny

D = 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


@pytest.fixture
def problem():
    """Original maps, the same after an edit, a concept's rows, a guide's."""
    torch.manual_seed(0)
    originals = [torch.randn(out, D).double() for out in (5, 9, 5, 9)]
    concept, guide = torch.randn(3, D).double(), torch.randn(3, D).double()
    keep = torch.eye(D).double()
    current = [edited(W, [Pair(concept, guide)], keep, 0.1, 1.0, 0.1, "replace") for W in originals]
    return originals, current, concept, guide, keep


def words(model, target, out, *more):
    return ["--target", target, "--model", str(model), "--out", str(out), "--device", "cpu", *more]


def gives(maps, rows):
    return torch.cat([rows @ W.T for W in maps], dim=1)


@pytest.mark.parametrize("ridge", [0.0, 1e-9])
def test_a_derived_embedding_gives_what_the_concept_gave(problem, ridge):
    """Without a ridge exactly, also after it was erased: another embedding gives it then."""
    originals, current, concept, guide, keep = problem
    for _ in range(2):
        found = derived(concept, *products(current, originals), ridge)
        torch.testing.assert_close(gives(current, found), gives(originals, concept), rtol=1e-4, atol=1e-4)
        assert (gives(current, concept) - gives(originals, concept)).abs().max() > 0.1
        current = [edited(W, [Pair(found, guide)], keep, 0.1, 1.0, 0.1, "replace") for W in current]
        assert (gives(current, found) - gives(originals, concept)).abs().max() > 0.1


def test_ridges_pull(problem):
    originals, current, concept, guide, _ = problem
    G, X = products(current, originals)
    for regularizer, end in (("zero", 0 * concept), ("target", guide), ("embedding", concept)):
        free = derived(concept, G, X, 0.0, regularizer, guide)
        distances = [(derived(concept, G, X, r, regularizer, guide) - end).norm() for r in (0.1, 10.0, 1e9)]
        assert (free - end).norm() > distances[0] > distances[1] > distances[2] and distances[2] < 1e-6
    torch.testing.assert_close(derived(concept, G, X, 1e9, "output"), concept, rtol=1e-4, atol=1e-4)
    same = derived(concept, *products(originals, originals), 0.0)
    torch.testing.assert_close(same, concept)  # of a model that has forgotten nothing


def test_no_epoch_is_uce(tiny_sd, tmp_path):
    shared = ["erase_scale=0.7", "lamb=0.3", "edit=['{theme}','art by {theme}']", "guide=Photo"]
    uce.main(words(tiny_sd, "Sketch", tmp_path / "uce", *shared))
    train.main(words(tiny_sd, "Sketch", tmp_path / "none", "epochs=0", *shared))
    train.main(words(tiny_sd, "Sketch", tmp_path / "one", *shared))
    states = [tiny.weights_of(tiny_sd, tmp_path / name) for name in ("uce", "none", "one")]
    assert not tiny.changed(*states[:2])
    assert tiny.changed(*states[1:]) == {n for n in states[0] if params.SCOPES["xattn_kv"](n)}


def test_names_of_concepts():
    targets = canvas.parse_targets("Van_Gogh,Cats,Neon_Lines+Sea")
    assert concept_names(targets) == ["Van Gogh", "Cats", "Sea in Neon Lines style"]


def test_prompts_of_the_published_variant(tiny_sd):
    args = cli.parse("", train.__file__, words(tiny_sd, "Sketch", "o", "--variant", "published"))
    assert edit_prompts(args) == {"Sketch": "art"} and args.settings.epoch_guide == "art"
    prompts, kept = world_prompts(args)
    assert len(prompts) == 11 and [p for p, k in zip(prompts, kept) if not k] == ["Sketch"]
    args = cli.parse("", train.__file__, words(tiny_sd, "Cats", "o", "--variant", "published"))
    assert edit_prompts(args) == {"Cats": " "} and world_prompts(args) == ([""], [True])
    assert args.settings.epoch_guide == ""


def test_a_sequence_derives_all_targets_with_the_base_model(tiny_sd, tmp_path, monkeypatch):
    """What the first run forgot is derived again, from what the base model gave, of another kind too."""
    seen = []
    monkeypatch.setattr(
        train, "products", lambda now, before: seen.append((now, before)) or products(now, before)
    )
    monkeypatch.setattr(
        train, "concept_names", lambda targets: seen.append([*targets]) or concept_names(targets)
    )
    train.main(words(tiny_sd, "Sketch", tmp_path / "first"))
    train.main(words(tiny_sd, "Cats,Sea", tmp_path / "second", "--from", str(tmp_path / "first")))
    assert [str(target) for target in seen[2]] == ["Sketch", "Cats", "Sea"]
    base = tiny.weights_of(tiny_sd)
    names = [name for name in base if params.SCOPES["xattn_kv"](name)]
    for _, before in (seen[1], seen[3]):
        assert {tuple(W.shape) for W in before} == {tuple(base[name].shape) for name in names}
        assert sorted(float(W.sum()) for W in before) == sorted(float(base[n].double().sum()) for n in names)
    after = tiny.weights_of(tiny_sd, tmp_path / "first")
    assert tiny.changed(base, after) == {*names}
    assert tiny.changed(after, tiny.weights_of(tiny_sd, tmp_path / "second")) == {*names}


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ("regularizer=first", "no such choice; choose from zero, target"),
        ("epoch_guide=a {theme}", "epoch_guide=a {theme}: expected a text with no braces"),
        ("epochs=-1", "expected a number from 0 to 1000"),
    ],
)
def test_senseless_settings_are_refused(setting, sentence, tiny_sd, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        train.main(words(tiny_sd, "Cats", tmp_path / "run", setting))
    assert exit.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
