"""Damaged files, numbers that are not finite, folders that cannot be written, two trainings in one folder."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.core import checkpoint
from evaluation.core.owner import alone
from style_transfer import evaluate, sheet, table, train_encoder, trivial
from style_transfer.core import costs, losses, weights
from style_transfer.core.training import Training
from tests.style_transfer.test_table import about
from tests.style_transfer.test_training import FEW, encoder, train  # noqa: F401

OUTPUTS = ["--data", "mini", "--styles", "Sketch", "--objects", "Cats"]
DAMAGE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"[]", b"{}", b"null", b'{"protocol": 1}', b'{"protocol": {"styles": "x"}}']),
)
SOME = settings(derandomize=True, max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def refused(capsys):
    """refused(main, *words) -> the one sentence that the command ends in."""

    def refused(main, *words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        said = capsys.readouterr().err
        assert stop.value.code == 2, said
        return said.splitlines()[-1]

    return refused


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted") / "content"
    trivial.main(["content", *OUTPUTS, "--out", str(folder)])
    return folder


# --- damaged files ----------------------------------------------------------------------------------------


@SOME
@given(content=DAMAGE)
def test_damaged_manifests(content, painted, tmp_path, refused):
    folder = tmp_path / "root/content"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)
    shutil.copytree(painted, folder)
    (folder / "manifest.json").write_bytes(content)
    for main, words in (
        (evaluate.main, [folder, *OUTPUTS[2:]]),
        (sheet.main, [tmp_path / "root", "--out", tmp_path / "s.png"]),
        (trivial.main, ["content", *OUTPUTS, "--out", folder]),
    ):
        assert "content" in refused(main, *words)


@SOME
@given(data=st.data())
def test_damaged_losses(data, tmp_path, refused):
    """Cut anywhere, or with another value in the place of any."""
    content = about("sanet", 3.5, 39.0)
    text, place = json.dumps(content), content
    if data.draw(st.booleans()):
        text = text[: data.draw(st.integers(0, len(text) - 2))]
    else:
        while isinstance(place, dict) and place:
            key = data.draw(st.sampled_from(sorted(place)))
            inside, place = place, place[key]
        inside[key] = data.draw(st.sampled_from([float("nan"), [], {"x": []}]))
        text = json.dumps(content)
    path = tmp_path / "sanet/losses.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    try:
        table.main([str(tmp_path)])
    except SystemExit as stop:
        assert stop.code == 2
        return
    assert "nan" not in (tmp_path / "table.json").read_text().lower()


def test_cut_lines_of_costs_do_not_count(tmp_path):
    line = {"outputs": 10, "seconds": 8.0, "seconds_network": 5.0, "peak_memory": 7, "stored_bytes": 3}
    whole = json.dumps(line | {"device": "cpu"})
    others = ['{"outputs": 3', "[]", '{"outputs": "many"}', '{"outputs": 0}', "\x00"]
    (tmp_path / costs.FILE).write_text("\n".join([whole, *others]))
    assert costs.summed(tmp_path)["cost"]["outputs"] == 10


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>", "half"])
def test_a_damaged_state_is_named(content, train, tmp_path, monkeypatch, refused):  # noqa: F811
    monkeypatch.setattr(checkpoint, "SECONDS", -1)
    monkeypatch.setattr(Training, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit, match="130"):
        train("sanet", tmp_path)
    state = tmp_path / ".training.pt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2] if content == "half" else content)
    said = refused(lambda words: train("sanet", tmp_path, *words))
    assert f"{state}: this saved state cannot be gone on with; remove it to start anew" in said


def test_a_log_that_was_cut_does_not_stop_a_training(train, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(checkpoint, "SECONDS", -1)
    save = Training.save
    monkeypatch.setattr(Training, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit, match="130"):
        train("sanet", tmp_path)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 1')
    monkeypatch.setattr(Training, "save", save)
    train("sanet", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2]


def test_a_damaged_record_is_named(train, tmp_path, refused):  # noqa: F811
    (tmp_path / "record.json").write_text("{")
    assert "record.json: damaged" in refused(lambda words: train("sanet", tmp_path, *words))


def test_what_a_killed_command_left_beside_its_result_is_cleared(train, tmp_path, capsys):  # noqa: F811
    train("sanet", tmp_path)
    (tmp_path / ".training.pt").write_bytes(b"state")
    train("sanet", tmp_path)
    assert "already trained" in capsys.readouterr().out and not (tmp_path / ".training.pt").exists()


# --- numbers that are not finite --------------------------------------------------------------------------


@pytest.mark.parametrize("odd, name", [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_are_finite(odd, name, tmp_path, refused):
    folder = tmp_path / "sanet"
    shutil.copytree("checkpoints/mini/style_transfer/sanet", folder)
    shutil.copy("checkpoints/mini/style_transfer/vgg_normalised.pth", tmp_path)
    file = folder / "decoder_iter_3000.pth"
    state = torch.load(file, weights_only=True)
    key = next(iter(state))
    state[key].view(-1)[0] = odd
    torch.save(state, file)
    transfer = importlib.import_module("style_transfer.transfer")
    said = refused(transfer.main, "sanet", "--weights", folder, *OUTPUTS, "--out", tmp_path / "out")
    assert f"{file}: its tensor {key} holds {name}" in said and "SANet" in said
    with pytest.raises(Exception, match="holds"):
        part = torch.nn.Linear(1, 1)
        part.weight.data[:] = odd
        weights.save_file(tmp_path / "saved.pth", part, half=True)
    assert not (tmp_path / "saved.pth").exists()


def test_losses_are_finite(painted, tmp_path, monkeypatch, refused):
    """One that is not is a fault of its output; nothing is written where there is no other."""
    shutil.copytree(painted, tmp_path / "out")
    nan = lambda x, y: torch.full((len(x[0][0][0]),), torch.nan)  # noqa: E731
    monkeypatch.setattr(losses, "style_loss", nan)
    said = refused(evaluate.main, tmp_path / "out", *OUTPUTS[2:], "--device", "cpu")
    assert "vgg_style_truth is nan" in said and ".png" in said and not list(tmp_path.glob("out/losses*"))


def test_the_encoders_loss_is_finite(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(train_encoder.F, "mse_loss", lambda x, y: (x - y).sum() * torch.inf)
    words = ["--per-object", "1", "steps=2", "batch=2", "width=0.0625", "--out", tmp_path]
    assert "the loss of step 0 is" in refused(train_encoder.main, *words)


# --- folders ----------------------------------------------------------------------------------------------


def test_one_training_in_a_folder(train, tmp_path, refused):  # noqa: F811
    with alone(tmp_path):
        said = refused(lambda words: train("sanet", tmp_path, *words))
        assert f"--out {tmp_path}: another process is at work here" in said
        said = refused(train_encoder.main, "--per-object", "1", "steps=1", "--out", tmp_path)
        assert "another process is at work here" in said
    train("sanet", tmp_path)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("out", ["", "file", "file/below", "x" * 300, "/proc/out"])
def test_folders_that_cannot_be_written(out, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for module in ("transfer", "train"):
        main = importlib.import_module(f"style_transfer.{module}").main
        words = ["sanet", "--data", "mini", "--out", out]
        if module == "transfer":
            root = Path(__file__).parents[2] / "checkpoints/mini/style_transfer"
            words += ["--weights", root / "sanet"]
        else:
            words += [
                "--encoder",
                Path(__file__).parents[2] / "checkpoints/mini/style_transfer/vgg_normalised.pth",
            ]
        refused(main, *words, *FEW[:2] if module == "train" else [])
    refused(trivial.main, "content", *OUTPUTS, "--out", out)
    refused(train_encoder.main, "steps=1", "--per-object", "1", "--out", out)


@pytest.mark.parametrize("out", ["sheet", "sheet.foo", "folder.png", "file/sheet.png"])
def test_sheets_that_cannot_be_written(out, painted, tmp_path, refused):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    assert out.partition("/")[0] in refused(sheet.main, painted.parent, "--out", tmp_path / out)
