"""What a run of outputs cost, and the two transfers without a network, which cost next to nothing."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from evaluation.canvas import PHOTO
from evaluation.mini import dataset as mini
from style_transfer import trivial
from style_transfer.core import costs
from tests.style_transfer import toy

FEW = ["--data", "mini", "--styles", "Sketch", "Rust", "--objects", "Cats", "Sea"]  # 24 outputs


@pytest.fixture
def paint(tmp_path):
    """Runs the toy; -> exit code, the lines of its costs."""

    def paint(*flags):
        weights, code = toy.released(tmp_path / "weights"), 0
        try:
            toy.main([str(x) for x in ("--weights", weights, "--out", tmp_path / "out", *flags)])
        except SystemExit as stop:
            code = stop.code
        path = tmp_path / "out" / costs.FILE
        return code, [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return paint


def test_every_process_leaves_a_line(paint, tmp_path):
    assert len(paint(*FEW, "--limit", 6)[1]) == 1
    _, lines = paint(*FEW)
    assert [line["outputs"] for line in lines] == [6, 18]
    assert len(paint(*FEW)[1]) == 2  # nothing left to do, nothing to say
    for line in lines:
        assert 0 < line["seconds_network"] < line["seconds"]
        assert line["stored_bytes"] == (tmp_path / "weights" / "toy_iter_100.pth").stat().st_size
        assert line["peak_memory"] > 1e7 and line["device"] == "cpu"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert not {"seconds", "outputs", "costs"} & set(manifest)


def test_seconds_of_the_network_are_the_networks(paint, monkeypatch):
    """An encoding and a decoding of 0.05 s, two rounds of reading of 0.1 s."""

    def slow(function, seconds):
        return lambda *args, **kwargs: time.sleep(seconds) or function(*args, **kwargs)

    for name in ("encode_content", "decode"):
        monkeypatch.setattr(toy.Toy, name, slow(getattr(toy.Toy, name), 0.05))
    monkeypatch.setattr(mini, "image", slow(mini.image, 0.1))
    _, (line,) = paint("--data", "mini", "--styles", "Rust", "--objects", "Cats")
    assert 0.1 < line["seconds_network"] < line["seconds"] - 0.15


def test_failed_inputs_do_not_hide_the_costs(paint, tmp_path):
    for name, colour in (("red", (255, 0, 0)), ("grey", (90, 90, 90))):
        path = tmp_path / "style" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), colour).save(path)
    code, lines = paint("--content", tmp_path / "style" / "grey.png", "--style", tmp_path / "style")
    assert code == 2 and [line["outputs"] for line in lines] == [1]
    code, lines = paint("--content", tmp_path / "style" / "grey.png", "--style", tmp_path / "style")
    assert code == 2 and [line["outputs"] for line in lines] == [1, 1]


def test_sums(tmp_path):
    assert costs.summed(tmp_path) == {}
    lines = [
        {"outputs": 10, "seconds": 8.0, "seconds_network": 5.0, "peak_memory": 7, "stored_bytes": 3},
        {"outputs": 30, "seconds": 4.0, "seconds_network": 1.0, "peak_memory": 9, "stored_bytes": 3},
    ]
    text = "".join(json.dumps(line | {"device": "cpu"}) + "\n" for line in lines)
    (tmp_path / costs.FILE).write_text(text)
    assert costs.summed(tmp_path)["cost"] == {
        "outputs": 40, "seconds": 0.3, "seconds_network": 0.15, "peak_memory": 9, "stored_bytes": 3,
        "devices": ["cpu"],
    }  # fmt: skip
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_bytes(b"12345")
    assert costs.size(tmp_path / "folder") == 10 and costs.size(tmp_path / "folder" / "a") == 5


# --- trivial transfers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", trivial.TRANSFERS)
def test_trivial(name, tmp_path):
    trivial.main([name, *FEW, "--out", str(tmp_path)])
    made = np.asarray(Image.open(tmp_path / "Rust" / "Sea_test20_ref3.png")).astype(float)
    photo, style = (
        np.asarray(mini.image(*row)).astype(float) for row in ((PHOTO, "Sea", 20), ("Rust", "Sea", 3))
    )
    assert len(list(tmp_path.glob("*/*.png"))) == 24
    if name == "content":
        assert (made == photo).all()
    else:
        scale = style.std((0, 1)) / photo.std((0, 1))
        wanted = ((photo - photo.mean((0, 1))) * scale + style.mean((0, 1))).clip(0, 255)
        assert np.abs(made - wanted).max() < 1 and np.abs(made - photo).max() > 10
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["method"] == name and manifest["weights"] == {}
    (line,) = (json.loads(line) for line in (tmp_path / costs.FILE).read_text().splitlines())
    assert line["stored_bytes"] == 0 and line["outputs"] == 24


def test_trivial_refusals(capsys):
    for argv, text in ((["contents"], "did you mean content"), ([], "no transfer named")):
        with pytest.raises(SystemExit):
            trivial.main(argv)
        assert text in capsys.readouterr().err
