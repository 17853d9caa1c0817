"""Which images are forgotten and kept, what they are taken for, and in which batches they come."""

import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diffusion_model_finetuning.core.sd import load_sd
from evaluation import protocol
from evaluation.canvas import PHOTO, parse_targets
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages
from machine_unlearning.core import cli, concepts, embeddings, forget
from machine_unlearning.salun import train as salun

WORLD = protocol.load("canvas")
MINI = protocol.load("mini")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


def arguments(target, model, *overrides, images=1):
    """Parsed as SalUn does, for 16-pixel images of the miniature."""
    sizes = ["size=16", "batch=4", f"images={images}", f"retain_images={images}", "retain_all=false"]
    words = ["--target", target, "--model", str(model), "--out", "unused", *sizes, *overrides]
    return cli.parse(salun.__doc__, salun.__file__, words)


def batches(sd, args, count, seed=0):
    streams = forget.streams(sd, args, torch.Generator().manual_seed(seed))
    return [(next(streams[0]), next(streams[1])) for _ in range(count)]


class Words:
    """Finds the prompt of an embedding."""

    def __init__(self, sd):
        self.prompts = ["", *(MINI.prompt(theme, obj) for theme in MINI.themes for obj in MINI.objects)]
        self.embedded = sd.embed(self.prompts)

    def __call__(self, text):
        return [self.prompts[(self.embedded - row).abs().sum((1, 2)).argmin()] for row in text]


@pytest.fixture(scope="module")
def words(sd):
    return Words(sd)


def test_cells_and_substitutes():
    def pairs(target):
        targets = parse_targets(target)
        cells = concepts.forget_cells(WORLD, targets)
        return cells, [concepts.substitute(WORLD, targets, *cell) for cell in cells]

    cells, substitutes = pairs("Van_Gogh")
    assert cells == [("Van_Gogh", obj) for obj in WORLD.objects]
    assert substitutes == [(PHOTO, obj) for obj in WORLD.objects]
    cells, substitutes = pairs("Waterfalls")  # the last object: the first one follows
    assert cells == [(theme, "Waterfalls") for theme in WORLD.themes] and len(cells) == 51
    assert substitutes == [(theme, "Architectures") for theme in WORLD.themes]
    assert pairs("Van_Gogh+Dogs") == ([("Van_Gogh", "Dogs")], [(PHOTO, "Dogs")])


@pytest.mark.parametrize("target", ["Sketch,Cats", "Cats,Dogs,Fishes", "Sketch,Rust", "Sketch+Dogs,Cats"])
def test_nothing_kept_shows_any_target(target):
    targets = parse_targets(target)
    cells = concepts.forget_cells(WORLD, targets)
    assert len(set(cells)) == len(cells)
    for theme, obj in cells:
        kept_theme, kept_obj = concepts.substitute(WORLD, targets, theme, obj)
        assert not any(t.covers(kept_theme, kept_obj) for t in targets)
        assert kept_theme in (theme, PHOTO)
    assert not set(forget.balanced_cells(WORLD, targets, targets)) & set(cells)


def test_a_whole_world_cannot_be_forgotten():
    small = replace(WORLD, objects=("Cats", "Dogs"), targets=())
    with pytest.raises(UserError, match="--target: names every object"):
        concepts.substitute(small, parse_targets("Cats,Dogs"), "Sketch", "Cats")


def test_balance():
    style, pair = parse_targets("Van_Gogh"), parse_targets("Van_Gogh+Dogs")
    assert len(forget.balanced_cells(WORLD, style, style)) == 50 * 20
    cells = forget.balanced_cells(WORLD, pair, pair)
    kinds = Counter((theme == "Van_Gogh", obj == "Dogs") for theme, obj in cells)
    assert kinds == {(True, False): 19, (False, True): 19, (False, False): 19}
    assert len(set(cells)) == 57


@pytest.mark.parametrize("target, cells", [("Sketch", 10), ("Cats", 11)])
def test_an_epoch_visits_every_image_with_its_partner(target, cells, sd, tiny_sd, words):
    args = arguments(target, tiny_sd, "batch=2", images=2)
    epoch = batches(sd, args, cells)
    asked = [text for a, _ in epoch for text in words(a.text)]
    partners = [text for _, b in epoch for text in words(b.text)]
    expected = {
        MINI.prompt(*cell): MINI.prompt(*concepts.substitute(MINI, args.targets, *cell))
        for cell in concepts.forget_cells(MINI, args.targets)
    }
    assert Counter(asked) == dict.fromkeys(expected, 2)
    assert partners == [expected[text] for text in asked]
    assert partners == [text for a, _ in epoch for text in words(a.pseudo)]
    assert asked != sorted(asked) and len(expected) == cells
    if target == "Cats":
        assert expected["A Cats image in Photo style."] == "A Fishes image in Photo style."


def test_first_batch_is_the_only_one(sd, tiny_sd, words):
    args = arguments("Sketch", tiny_sd, "first_batch=true", images=3)
    first = [("Architectures", 3), ("Butterfly", 1)]
    for a, b in batches(sd, args, 5):
        assert Counter(words(a.text)) == {MINI.prompt("Sketch", obj): n for obj, n in first}
        assert Counter(words(b.text)) == {MINI.prompt(PHOTO, obj): n for obj, n in first}


def test_all_kept_cells(sd, tiny_sd, words):
    (_, b), *_ = batches(sd, arguments("Sketch", tiny_sd, "retain_all=true", "batch=100"), 1)
    kept = {MINI.prompt(theme, obj) for theme in MINI.themes for obj in MINI.objects if theme != "Sketch"}
    assert len(kept) == 100 and set(words(b.text)) == kept


def test_latents_are_the_image_s_and_noised(sd, tiny_sd):
    args = arguments("Sketch+Cats", tiny_sd, "batch=64")
    a, _ = batches(sd, args, 1)[0]
    image = CanvasImages("mini", [("Sketch", "Cats")], (1,), 16)[0]["image"]
    mean, logvar = sd.moments(image[None]).chunk(2, dim=1)
    abar = sd.abar[a.t].view(-1, 1, 1, 1)
    latents = (a.x - (1 - abar).sqrt() * a.noise) / abar.sqrt()
    scale, early = sd.vae.config.scaling_factor, a.t < 700  # later there is little left to recover
    deviation = (latents[early] / scale - mean) / (logvar / 2).exp()
    assert abs(deviation.mean()) < 0.05 and abs(deviation.std() - 1) < 0.05
    assert a.t.min() < 100 and a.t.max() > 900 and abs(a.noise.std() - 1) < 0.05


def test_prompts_are_emptied(sd, tiny_sd, words):
    for share in (0.0, 0.25, 1.0):
        args = arguments("Sketch", tiny_sd, f"text_drop={share}", "batch=1000")
        a, b = batches(sd, args, 1)[0]
        empty = torch.tensor([[p == "" for p in words(text)] for text in (a.text, a.pseudo, b.text)])
        assert (empty.float().mean(1) - share).abs().max() < 0.05
        together = (empty[0] & empty[1]).float().mean()
        assert abs(together - share**2) < 0.05  # independent draws


def test_same_seed_same_batches(sd, tiny_sd):
    args = arguments("Sketch", tiny_sd)
    one, two, other = (batches(sd, args, 2, seed)[1][0].x for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_published_lists_and_wording(tiny_sd, tmp_path, monkeypatch):
    """60 and 153 images; a photograph is called Photo for a style, Seed Images for an object."""
    said, lists, resizes = [], [], []
    real = shutil.copytree(tiny_sd, tmp_path / "real")
    (real / "canvas.json").unlink()  # a real-size model has no card

    def embed(prompts):
        said.extend(prompts)
        return torch.zeros(len(prompts), 1, 1)

    def images(root, cells, indices, size, resize):
        resizes.append(resize)
        lists.append([(*cell, i) for cell in cells for i in indices])
        return SimpleNamespace(rows=lists[-1], root=root, size=size)

    monkeypatch.setattr(forget, "CanvasImages", images)
    monkeypatch.setattr(forget, "cached_moments", lambda sd, images, *rest, **more: torch.zeros(1))
    for target, count, photo in (("Van_Gogh", 60, "Photo"), ("Dogs", 153, "Seed Images")):
        said.clear(), lists.clear()
        words = ["--target", target, "--model", str(real), "--out", "unused", "--variant", "published"]
        args = cli.parse(salun.__doc__, salun.__file__, words)
        forget.streams(SimpleNamespace(embed=embed, device="cpu"), args, None)
        assert [len(rows) for rows in lists] == [count, count]
        assert f"A {'Flame' if count == 60 else 'Dogs'} image in {photo} style." in said
        assert {row[2] for row in lists[0]} == {1, 2, 3}
    assert {*resizes} == {"bicubic"}


def test_without_data_or_anything_in_the_target_s_place(tiny_sd, tmp_path):
    """Told before a model is loaded."""
    words = ["--model", str(tiny_sd), "--out", "o", "--target"]
    everything = ",".join(protocol.load("mini").objects)
    with pytest.raises(UserError, match="--target: names every object of Cartoon"):
        cli.parse_with_substitutes("", salun.__file__, [*words, everything])
    bare = shutil.copytree(tiny_sd, tmp_path / "bare")
    (bare / "canvas.json").unlink()
    words = ["--model", str(bare), "--out", "o", "--target", "Sketch"]
    with pytest.raises(UserError, match="--data is missing"):
        cli.parse_with_images("", salun.__file__, words)


def test_relabelling_has_a_gradient_in_the_prompt_s_branch_only(sd, tiny_sd):
    a, _ = batches(sd, arguments("Sketch", tiny_sd), 1)[0]
    a = a._replace(text=a.text.clone().requires_grad_(), pseudo=a.pseudo.clone().requires_grad_())
    forget.relabelling_loss(sd.unet, a).backward()
    assert a.text.grad.abs().sum() > 0 and a.pseudo.grad is None
    assert forget.relabelling_loss(sd.unet, a._replace(pseudo=a.text)) == 0
