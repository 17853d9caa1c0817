"""The shared command line: variants, kinds of target, overrides, cards."""

import shutil

import pytest

from evaluation import canvas, protocol
from evaluation.core.errors import UserError
from machine_unlearning.core import cli, concepts
from tests import tiny

CONFIG = """
canvas:
  all: {lr: 1.0, steps: 10, scope: xattn}
  style: {prompt: "{style} Style"}
  object: {prompt: "An image of {object}.", lr: 2.0}
published:
  all: {lr: 3.0}
  pair: {prompt: both}
mini:
  all: {steps: 5}
"""


@pytest.fixture
def parse(tiny_sd, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)

    def run(target, *more, model=tiny_sd):
        return cli.parse(
            "doc",
            str(tmp_path / "train.py"),
            ["--target", target, "--model", str(model), "--out", "o", *more],
        )

    return run


@pytest.mark.parametrize(
    "target, more, expected",
    [
        ("Sketch", [], {"lr": 1.0, "steps": 5, "scope": "xattn", "prompt": "{style} Style"}),
        ("Cats", [], {"lr": 2.0, "steps": 5, "scope": "xattn", "prompt": "An image of {object}."}),
        ("Monet", ["--variant", "canvas"], None),  # the miniature's card still names its world
        ("Cats", ["--variant", "canvas"], {"lr": 2.0, "steps": 10}),
        ("Rust", ["--variant", "published"], {"lr": 3.0, "steps": 10}),
        ("Rust+Cats", ["--variant", "published"], {"prompt": "both"}),
        ("Sketch", ["lr=0.5", "steps=7"], {"lr": 0.5, "steps": 7}),
    ],
)
def test_settings(parse, target, more, expected):
    if expected is None:
        with pytest.raises(UserError, match="does not know Monet"):
            parse(target, *more)
    else:
        assert dict(parse(target, *more).settings).items() >= expected.items()


def test_flags_and_world(parse, tiny_sd, tmp_path):
    args = parse("Sketch,Rust", "--seed", "4", "lr=0.5")
    assert (args.variant, args.world.name, args.seed, args.start) == ("mini", "mini", 4, None)
    assert args.targets == canvas.parse_targets("Sketch,Rust")
    real = tmp_path / "real"
    shutil.copytree(tiny_sd, real)
    (real / "canvas.json").unlink()  # a real-size model has no card
    args = parse("Monet", model=real)
    assert (args.variant, args.world.name) == ("canvas", "canvas")
    published = protocol.load("canvas-published")
    assert parse("Monet", "--variant", "published", model=real).world.hash == published.hash
    small = parse("Rust", "--variant", "published").world  # published, but for the names that the model knows
    assert (small.photo, small.themes) == (published.photo, protocol.load("mini").themes)


@pytest.mark.parametrize(
    "target, more, message",
    [
        ("Skecth", [], "did you mean Sketch"),
        ("Sketch+Cats", [], "has no settings for a pair"),
        ("Sketch,Cats", [], "style and object have different settings"),
        ("Sketch", ["lrr=1"], "no setting is called 'lrr'; did you mean lr"),
        ("Sketch", ["lr"], "key=value"),
        ("Sketch", ["lr=fast"], "lr is 1.0 by default, so 'fast' does not fit"),
        ("Sketch", ["steps=true"], "does not fit"),
    ],
)
def test_refusals(parse, target, more, message):
    with pytest.raises(UserError, match=message):
        parse(target, *more)


def test_earlier_runs_that_nothing_can_go_on_from(parse, tmp_path):
    assert parse("Sketch", "--from", str(tiny.finished(tmp_path / "run"))).start
    (tmp_path / "run/weights.safetensors").unlink()
    tiny.finished(tmp_path / "theirs", foreign=True)
    (tiny.finished(tmp_path / "cut") / "record.json").write_text("{")
    tiny.finished(tmp_path / "path", "../esd")
    for name, message in {
        "nowhere": "no record.json, so no finished run", "run": "no weights.safetensors; remove the folder",
        "theirs": "was made elsewhere", "cut": "record.json: damaged",
        "path": "its method '../esd' is no name",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message):
            parse("Sketch", "--from", str(tmp_path / name))


@pytest.mark.parametrize("name", ["seot", "spm"])
def test_methods_that_act_while_sampling(name):
    assert cli.intervenes(name)
    assert not any(map(cli.intervenes, ("esd", "os.path", f"../{name}", f"esd/../{name}", f"{name}.x", "")))


@pytest.mark.parametrize("out", ["x" * 300, "a\0b", "", "config.yaml", "config.yaml/run"])
def test_folders_that_cannot_be_written(parse, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        parse("Sketch", "--out", out)
    assert stop.value.code == 2 and "argument --out: " in capsys.readouterr().err


def test_words():
    target = canvas.parse_targets("Van_Gogh+Cats")[0]
    assert concepts.say("{style} Style of {object}", target) == "Van Gogh Style of Cats"
    assert concepts.say("{style}", target, underscores=True) == "Van_Gogh"
    assert concepts.cell_prompt("A {object} image in {theme} style.", canvas.PHOTO, "Sea") == canvas.prompt(
        canvas.PHOTO, "Sea"
    )
    assert concepts.cell_prompt("{theme}", "Van_Gogh", "Sea", underscores=True) == "Van_Gogh"


def test_kept_cells(parse):
    world = parse("Sketch").world
    kept = concepts.kept_cells(world, canvas.parse_targets("Sketch,Cats,Rust+Sea"))
    assert len(kept) == len(set(kept)) == (len(world.themes) - 1) * (len(world.objects) - 1) - 1
    assert not any(
        theme == "Sketch" or obj == "Cats" or (theme, obj) == ("Rust", "Sea") for theme, obj in kept
    )
    assert (canvas.PHOTO, "Sea") in kept
