"""Every method's training: two steps from its command, the files it writes, and what stops and goes on."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation import canvas
from evaluation.core import checkpoint
from evaluation.core.errors import UserError
from evaluation.judges.classifier import preprocess
from evaluation.mini import dataset as mini
from style_transfer import train as command
from style_transfer.core import cli, training, vgg
from style_transfer.core import weights as released
from style_transfer.core.images import crops
from style_transfer.core.training import Training
from style_transfer.core.training_data import streams
from tests.style_transfer import narrow
from tests.style_transfer.narrow import WIDTHS

ROOT = Path(__file__).parents[2]
METHODS = sorted(path.parent.name for path in ROOT.glob("style_transfer/*/train.py"))
OPTIONS = {"artflow": ["hidden=4"], "cast": ["width=0.0625"]}
FEW = ["steps=3", "batch=2", "load=48", "crop=32"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return narrow.write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def train(encoder):
    """train(method, out, *settings) runs a method's command on few, small images."""
    full = cli.protocols.load("transfer-mini")
    small = replace(full, styles=("Sketch", "Rust"), objects=("Cats", "Sea"))

    def run(method, out, *settings):
        flags = ["--encoder", str(encoder), "--out", str(out), "--workers", "0", "--device", "cpu"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli.protocols, "load", lambda name: small)
            command.main([method, *flags, *FEW, *OPTIONS.get(method, []), *settings])

    return run


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """-> function of a method: the folder of its training, made once and only to be read."""
    root = tmp_path_factory.mktemp("trained")

    def run(method):
        if not (root / method / "record.json").exists():
            train(method, root / method)
        return root / method

    return run


def parse(method, *words):
    return command.parse([method, *words])


def files(method, out):
    """Of the training, under the released names."""
    names = importlib.import_module(f"style_transfer.{method}.model").FILES
    return released.find(out, {name: "" for name in names if name != vgg.ENCODER})


def weights(method, out):
    return {name: torch.load(path, weights_only=True) for name, path in files(method, out).items()}


def same(a, b):
    return all(torch.equal(a[file][key], b[file][key]) for file in a for key in a[file])


@pytest.mark.parametrize("method", METHODS)
def test_files_can_be_loaded_and_paint(method, trained, encoder):
    out = trained(method)
    model = importlib.import_module(f"style_transfer.{method}.model")
    found = files(method, out)
    network = model.load({vgg.ENCODER: encoder} | found)
    made = network.stylise(*(torch.rand(1, 3, 32, 32) for _ in range(2)))
    assert made.shape == (1, 3, 32, 32)
    assert made.isfinite().all()
    record = json.loads((out / "record.json").read_text())
    assert record["method"] == method
    assert record["stored_bytes"] == sum(path.stat().st_size for path in found.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_goes_on_as_if_it_had_not(method, train, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", -1)
    through = Training.step

    def stop(self, *args, **numbers):
        if self.number == 2:
            raise KeyboardInterrupt
        through(self, *args, **numbers)

    monkeypatch.setattr(Training, "step", stop)
    with pytest.raises(SystemExit, match="130"):
        train(method, tmp_path / "stopped")
    monkeypatch.setattr(Training, "step", through)
    train(method, tmp_path / "stopped")
    folders = trained(method), tmp_path / "stopped"
    whole, stopped = (weights(method, folder) for folder in folders)
    assert whole.keys() == stopped.keys() != set()
    assert same(whole, stopped)
    logs = [(folder / "log.jsonl").read_text() for folder in folders]
    assert logs[0] == logs[1]
    assert not (tmp_path / "stopped" / ".training.pt").exists()


@pytest.mark.parametrize("method", METHODS)
def test_seeds_differ_and_steps_change_weights(method, train, trained, tmp_path):
    train(method, tmp_path / "two", "--seed", "1")
    train(method, tmp_path / "longer", "steps=4")
    one = weights(method, trained(method))
    assert not same(one, weights(method, tmp_path / "two"))
    assert not same(one, weights(method, tmp_path / "longer"))


def test_a_finished_training_is_kept(train, tmp_path, capsys):
    train("sanet", tmp_path)
    before = (tmp_path / "record.json").read_bytes()
    capsys.readouterr()
    train("sanet", tmp_path)
    assert "already trained" in capsys.readouterr().out
    assert (tmp_path / "record.json").read_bytes() == before
    with pytest.raises(SystemExit) as stop:
        train("sanet", tmp_path, "lr=1")
    assert stop.value.code == 2
    assert "another settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["--encoder", "/no/such.pth"], "--encoder /no/such.pth: no such file"),
        (["crop=64", "load=48"], "crop=64: expected a multiple of 16, and no more than load=48"),
        (["learning=1"], "no setting is called 'learning'"),
        (["--data", "/no/such/folder"], "--data /no/such/folder: no such folder"),
    ],
)
def test_mistakes_are_explained(wrong, said, train, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train("sanet", tmp_path, *wrong)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("logged", [1, 20])
def test_a_loss_that_is_not_finite_stops_the_training(logged, train, tmp_path, capsys, monkeypatch):
    """At a step that is logged, and before a state is saved."""
    monkeypatch.setattr(checkpoint, "SECONDS", -1)
    monkeypatch.setattr(training, "LOG_STEPS", logged)
    through = Training.step

    def step(self, optimizer, loss, **numbers):
        through(self, optimizer, loss * (float("inf") if self.number == 1 else 1), **numbers)

    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(SystemExit) as stop:
        train("sanet", tmp_path)
    assert stop.value.code == 2
    assert "loss of step 1 is inf; lower lr" in capsys.readouterr().err
    state = torch.load(tmp_path / ".training.pt", weights_only=True)
    assert state["step"] == 1 and not (tmp_path / "record.json").exists()


def test_a_loss_that_was_not_finite_between_two_looks_stops_the_training(
    train, tmp_path, capsys, monkeypatch
):
    """Also if it, or a number beside it, is again at the next look; the first such step is named."""
    through = Training.step

    def step(self, optimizer, loss, **numbers):
        odd = float("nan") if self.number in (1, 2) else 0.0
        through(self, optimizer, loss, **numbers, discriminator=odd)

    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(SystemExit) as stop:
        train("sanet", tmp_path, "steps=4")
    assert stop.value.code == 2
    assert "discriminator of step 1 is nan; lower lr" in capsys.readouterr().err
    assert not (tmp_path / "record.json").exists()


def test_files_are_named_after_the_steps_of_their_training(trained):
    assert {path.name for path in trained("sanet").glob("*.pth")} == {
        "decoder_iter_3.pth",
        "transformer_iter_3.pth",
    }


@pytest.fixture
def folders(tmp_path):
    """Photos, and paintings of two styles in folders of their own, each style of one colour."""
    colours = {"photos/deep/er": 200, "art/grey": 100, "art/black": 0}
    for folder, level in colours.items():
        (tmp_path / folder).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (60 + number, 50), (level, level, level)).save(
                tmp_path / folder / f"{number}.png"
            )
    return tmp_path / "photos", tmp_path / "art"


def test_any_two_folders_of_pictures(folders, encoder, tmp_path):
    photos, art = folders
    words = ["sanet", "--contents", str(photos), "--styles", str(art), "--encoder", str(encoder)]
    words += ["--out", str(tmp_path / "out"), "--variant", "mini", "--workers", "0", "--device", "cpu", *FEW]
    args = command.parse(words)
    contents, styles = (next(stream).float().mean((1, 2, 3)) for stream in streams(args, 0))
    assert (contents == 200).all() and len(contents) == 2
    levels = {
        float(level)
        for _, batch in zip(range(8), streams(args, 0)[1])
        for level in batch.float().mean((1, 2, 3))
    }
    assert levels == {0, 100} and len(styles) == 2
    out = command.parse([*words, "--hold-out", "black"])
    assert all((batch == 100).all() for _, batch in zip(range(8), streams(out, 0)[1]))
    command.main([*words, "--hold-out", "black"])
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert record["data"] == {"contents": str(photos), "styles": str(art)} and record["held_out"] == ["black"]


def test_a_style_of_the_data_set_is_held_out(tmp_path):
    args = command.parse(["sanet", "--out", str(tmp_path), "--workers", "0", "--hold-out", "Rust", "batch=2"])
    args.world = replace(args.world, styles=("Rust", "Sketch"), objects=("Cats",))
    kept = {
        tuple(image.flatten().tolist()) for _, batch in zip(range(20), streams(args, 0)[1]) for image in batch
    }
    sketches = [mini.image("Sketch", "Cats", number) for number in canvas.TRAIN]
    assert kept == {tuple(preprocess(image, 64).flatten().tolist()) for image in sketches}


@pytest.mark.parametrize(
    "words, said",
    [
        (["--contents", "."], "--contents and --styles go together, without --data"),
        (["--contents", ".", "--styles", ".", "--data", "mini"], "go together, without --data"),
        (["--contents", "nowhere", "--styles", "."], "--contents nowhere: no such folder"),
        (["--contents", ".", "--styles", ".", "--hold-out", "a"], "--hold-out a: no such folder in --styles"),
        (["--hold-out", "Skech"], "--hold-out Skech: not in the protocol; did you mean Sketch"),
    ],
)
def test_data_that_do_not_fit(words, said, tmp_path):
    with pytest.raises(UserError, match=said):
        command.parse(["sanet", "--out", str(tmp_path), *words])


def test_a_decoder_that_artflow_has_not(encoder, tmp_path):
    with pytest.raises(UserError, match=r"--init .*: artflow has no decoder that could begin so"):
        command.parse(["artflow", "--out", str(tmp_path), "--init", str(encoder)])


def test_real_data_needs_an_encoder(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["sanet", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "--encoder" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_both_variants_say_everything(method, tmp_path):
    """The miniature's settings are the published ones but for those that it names."""
    flags = ["--out", str(tmp_path), "--encoder", "checkpoints/mini/style_transfer/vgg_normalised.pth"]
    mini, canvas = (parse(method, *flags, *more).settings for more in ([], ["--variant", "canvas"]))
    assert mini.keys() == canvas.keys()
    assert canvas.crop <= canvas.load
    assert not canvas.half


@pytest.mark.parametrize("method", METHODS)
def test_decoders_begin_as_the_mirror_image(method, train, encoder, tmp_path, monkeypatch):
    if method == "artflow":
        pytest.skip("has no decoder")
    monkeypatch.setattr(Training, "step", lambda *args, **numbers: None)
    first = next(iter(torch.load(encoder.with_name(vgg.DECODER), weights_only=True).values()))
    for expected in (True, False):
        out = tmp_path / str(expected)
        train(method, out, *([] if expected else ["--init", "none"]))
        decoder = "dec_r41.pth" if method == "mast" else next(f for f in weights(method, out) if "ec" in f)
        made = next(iter(weights(method, out)[decoder].values())).float()
        assert torch.allclose(made, first, atol=1e-3) == expected


def test_a_mirror_image_that_is_missing_or_of_another_width_is_named(train, encoder, tmp_path, capsys):
    alone = tmp_path / vgg.ENCODER
    alone.write_bytes(encoder.read_bytes())
    for content, said in ((None, "no such file"), (vgg.decoder((2, 2, 2, 2)), "does not fit")):
        if content:
            torch.save(content.state_dict(), alone.with_name(vgg.DECODER))
        with pytest.raises(SystemExit) as stop:
            train("sanet", tmp_path / "out", "--encoder", str(alone))
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert said in error and vgg.DECODER in error


def test_a_copied_decoder_paints_the_same_and_leaves_more_features_aside():
    mirror, wide = narrow.lively(vgg.decoder(WIDTHS)), vgg.decoder(WIDTHS)
    wide[1] = torch.nn.Conv2d(WIDTHS[3] + 2, WIDTHS[2], 3)
    vgg.copy(mirror, wide)
    features = torch.rand(1, WIDTHS[3] + 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(wide(features), mirror(features[:, : WIDTHS[3]]))


def test_an_encoder_of_another_width_than_cast_is_named(train, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train("cast", tmp_path, "width=0.125")
    assert stop.value.code == 2
    assert "width=0.125: --encoder" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_methods_cool_down(method, train, tmp_path):
    for share in ("0.0", "1.0"):
        train(method, tmp_path / share, f"cooldown={share}")
    assert not same(weights(method, tmp_path / "0.0"), weights(method, tmp_path / "1.0"))


def test_cooling_down(tmp_path):
    args = parse("sanet", "--out", str(tmp_path), "steps=10")
    run = Training(args)
    for cooldown, wanted in ((0.4, [1] * 7 + [0.75, 0.5, 0.25]), (0.0, [1] * 10)):
        args.settings.cooldown, rates = cooldown, []
        for run.number in range(10):
            rates.append(run.cooled(1.0))
        assert rates == pytest.approx(wanted)


def test_crops_are_squares_of_the_images():
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(40, 3, 8, 8)
    made = crops(images, 5, True, torch.Generator().manual_seed(0)) * 255
    steps = made[:, 0, 0, 1] - made[:, 0, 0, 0]
    assert set(steps.round().int().tolist()) == {1, -1}  # some are mirrored
    corners = made.flatten(1).min(1).values.round().int().tolist()
    assert set(corners) <= {8 * row + column for row in range(4) for column in range(4)}
    assert len(set(corners)) > 8
    assert torch.equal(crops(images, 8, False, torch.Generator()), images.float() / 255)
