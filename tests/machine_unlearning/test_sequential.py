"""Sequential requests: what earlier runs forgot is neither kept nor put in a later target's place."""

from types import SimpleNamespace

import pytest
import torch

from evaluation import canvas
from evaluation.core.errors import UserError
from machine_unlearning.ca.prompts import caption_rows
from machine_unlearning.core import cli, forget
from machine_unlearning.core.prompts import edit_prompts, world_prompts
from machine_unlearning.sa.prompts import replayed, surrogates
from tests import tiny

RETAINING = ("salun", "ediff", "shs")  # those that read images to keep


@pytest.fixture
def chain(tmp_path):
    """Three runs, each from the one before: the style Rust, then Fishes, then Flame and Flowers at once."""
    start, earlier = None, []
    for number, target in enumerate(("Rust", "Fishes", "Flame,Flowers"), 1):
        about = {"from": str(start), "earlier": [*earlier]} if start else {}
        start = tiny.finished(tmp_path / str(number), target=target, **about)
        earlier.append({"method": "esd", "target": target})
    return start


@pytest.fixture
def parse(tiny_sd, chain):
    def run(method, target, *words, parser=cli.parse):
        flags = ["--target", target, "--model", str(tiny_sd), "--out", "o", "--from", str(chain)]
        return parser("doc", str(cli.METHODS / method / "train.py"), [*flags, *words])

    return run


def shows(cell) -> bool:
    return any(target.covers(*cell) for target in canvas.parse_targets("Rust,Fishes,Flame,Flowers"))


def names(prompts):
    return [name for name in ("Rust", "Fishes", "Flame", "Flowers") if any(name in p for p in prompts)]


def test_the_whole_chain_is_forgotten(parse):
    args = parse("esd", "Cats")
    assert list(map(str, args.forgotten)) == ["Rust", "Fishes", "Flame", "Flowers", "Cats"]
    assert list(map(str, args.targets)) == ["Cats"]


@pytest.mark.parametrize("method", RETAINING)
@pytest.mark.parametrize("target, retain_all", [("Cats", False), ("Sketch", True), ("Sketch+Cats", True)])
def test_images_to_keep_and_substitutes(method, target, retain_all, parse, monkeypatch):
    """Cells of the target alone are forgotten, those of the chain among them too."""
    cells = []

    def images(root, kept, *_):
        cells.append(kept)
        return SimpleNamespace(rows=[(*cell, 1) for cell in kept], root=root, size=16)

    monkeypatch.setattr(forget, "CanvasImages", images)
    monkeypatch.setattr(forget, "cached_moments", lambda *_, **__: torch.zeros(1))
    args = parse(method, target, f"retain_all={retain_all}", parser=cli.parse_with_substitutes)
    said = []
    embed = lambda prompts: said.append(prompts) or torch.zeros(len(prompts), 1, 1)  # noqa: E731
    forget.streams(SimpleNamespace(embed=embed, device="cpu"), args, None)
    forgotten, kept = cells
    everything = [(theme, obj) for theme in args.world.themes for obj in args.world.objects]
    assert forgotten == [cell for cell in everything if args.targets[0].covers(*cell)]
    assert kept and not any(map(shows, kept)) and not set(kept) & set(forgotten)
    assert not names({*said[0]} - {args.world.prompt(*cell) for cell in forgotten})
    if target == "Cats":  # Fishes, Flame and Flowers follow, and are gone; so is Rust
        photo = canvas.PHOTO
        assert kept == [(photo if theme == "Rust" else theme, "Sea") for theme in args.world.themes]
    if target == "Sketch":
        assert len(kept) == (11 - 2) * (10 - 3)


def test_uce(parse):
    args = parse("uce", "Cats")
    prompts, kept = world_prompts(args)
    assert not names([prompt for prompt, keep in zip(prompts, kept, strict=True) if keep])
    guides = edit_prompts(args)
    assert guides["A Cats"] == "A Sea" and not names(guides.values())
    assert guides["A Cats image in Rust style."] == "A Sea image in Photo style."


def test_ca(parse):
    anchors, said = zip(*caption_rows(parse("ca", "Cats")), strict=True)
    assert not names(anchors) and any("Sea" in anchor for anchor in anchors)
    assert all("Cats" in text for texts in said for text in texts)


@pytest.mark.parametrize("replay_target", [False, True])
def test_sa(parse, replay_target):
    args = parse("sa", "Cats", f"replay_target={replay_target}")
    prompts, kept = replayed(args)
    rehearsed = [prompts[i] for i in kept]
    assert len(kept) == (11 - 1) * (10 - 4 + replay_target) and not names(rehearsed)
    assert any("Cats" in prompt for prompt in rehearsed) == replay_target
    captions, instead = surrogates(args)
    assert not names(instead) and all("Cats" in caption for caption in captions)


def test_what_the_chain_leaves_nothing_for(parse):
    rest = "Architectures,Butterfly,Cats,Sea,Statues,Towers,Trees"
    with pytest.raises(UserError, match="names every object of Cartoon that no run of --from forgot"):
        parse("salun", rest, parser=cli.parse_with_substitutes)


def test_chains_that_break(parse, chain, tmp_path):
    for record, message in (
        ({"from": "before"}, r"3/record.json: damaged \(earlier is None\)"),  # of an older version
        ({"earlier": "Rust"}, r"3/record.json: damaged \(earlier is 'Rust'\)"),
        ({"earlier": [3]}, r"3/record.json: damaged \(earlier is \[3\]\)"),
        ({"earlier": [{"method": "esd", "target": 3}]}, r"3/record.json: damaged \(earlier is "),
        (
            {"earlier": [{"method": "esd", "target": "Fish"}]},
            "3/record.json: target Fish: no style or object is called 'Fish'",
        ),
    ):
        tiny.finished(tmp_path / "3", **record)
        with pytest.raises(UserError, match=message):
            parse("esd", "Cats")
    (tmp_path / "3/record.json").write_text("{")
    with pytest.raises(UserError, match=r"3/record\.json: damaged"):
        parse("esd", "Cats")
