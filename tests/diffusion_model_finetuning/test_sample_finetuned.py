"""Pictures of a model: one prompt, one photo, and answer sets that the judges accept."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion_model_finetuning import sample as sampler
from diffusion_model_finetuning.core import drawing, ip2p
from diffusion_model_finetuning.core.sd import load_sd, sample
from diffusion_model_finetuning.core.training import save_pipeline
from evaluation import canvas, predict, protocol
from evaluation.answers.answer_set import AnswerSet, Cell, grid, protocol_of, read_manifest
from evaluation.core.files import read_json_lines
from evaluation.data.images import CanvasImages
from tests import synthetic, tiny


@pytest.fixture(scope="module")
def editor(tiny_sd, tmp_path_factory):
    """A model of doubled input channels to which the photo matters."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    folder, sd = tmp_path_factory.mktemp("editor"), load_sd(tiny_sd)
    ip2p.inflate(sd)
    sd.unet.conv_in.weight[:, 4:] = 0.3 * torch.randn(sd.unet.conv_in.weight[:, 4:].shape)
    card = tiny.CARD | {"guidance": 3.0, "photo_guidance": 1.2}
    save_pipeline(sd, folder, False, card, StableDiffusionInstructPix2PixPipeline)
    return folder


@pytest.fixture(scope="module")
def protocol_file(tmp_path_factory):
    themes = ("Rust", canvas.PHOTO, "Sketch")
    small = replace(
        protocol.load("mini"), themes=themes, objects=("Cats", "Sea"), targets=(), steps=4, size=16
    )
    content = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(small).items()}
    path = tmp_path_factory.mktemp("protocol") / "small.yaml"
    OmegaConf.save(OmegaConf.create({key: content[key] for key in content if key != "name"}), path)
    return path


def run(*words):
    sampler.main([*map(str, words), "--device", "cpu"])


def pixels(path):
    return np.asarray(Image.open(path))


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_one_prompt(tiny_sd, tmp_path):
    words = ("--model", tiny_sd, "--prompt", "Rust style", "--size", 16, "--steps", 4)
    run(*words, "--out", tmp_path / "a.png", "--seed", 3, "--guidance", 2)
    expected = sample(load_sd(tiny_sd), ["Rust style"], [3], 4, 2.0, 16)[0]
    assert np.array_equal(pixels(tmp_path / "a.png"), expected)


def test_one_photo(editor, tmp_path):
    photo = tmp_path / "photo.png"  # wider than high: its central square counts
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8)).save(photo)
    words = ("--model", editor, "--prompt", "Transform the image to Rust style.", "--size", 16, "--steps", 4)
    run(*words, "--photo", photo, "--out", tmp_path / "a.png")
    square = torch.from_numpy(pixels(photo)[:, 12:28].copy()).permute(2, 0, 1)[None] / 255
    expected = ip2p.edit(load_sd(editor), square, [words[3]], [0], 4, 3.0, 1.2)[0]  # the card's guidance
    assert np.array_equal(pixels(tmp_path / "a.png"), expected)
    run(*words, "--photo", photo, "--out", tmp_path / "b.png", "--photo-guidance", 0)
    assert not np.array_equal(pixels(tmp_path / "b.png"), expected)


def test_answer_set_of_a_base_model(tiny_sd, protocol_file, tmp_path):
    run("--model", tiny_sd, "--protocol", protocol_file, "--out", tmp_path / "ours")
    from machine_unlearning import sample as unlearning

    words = ["--model", tiny_sd, "--protocol", protocol_file, "--out", tmp_path / "theirs", "--device", "cpu"]
    unlearning.main([*map(str, words)])
    assert (
        pictures(tmp_path / "ours") == pictures(tmp_path / "theirs")
        and len(pictures(tmp_path / "ours")) == 12
    )
    assert read_manifest(tmp_path / "ours") == read_manifest(tmp_path / "theirs")


def test_edited_answer_set(editor, protocol_file, tmp_path, monkeypatch):
    words = ("--model", editor, "--protocol", protocol_file, "--data", "mini:7", "--batch", 3)
    run(*words, "--out", tmp_path / "whole")
    p = protocol_of(tmp_path / "whole")
    assert p.themes == ("Rust", "Sketch") and p.seeds == canvas.TEST and p.guidance == 3.0
    assert p.prompt("Rust", "Sea") == "Transform the image to Rust style."
    assert p.hash != protocol.load(protocol_file).hash
    made_with = read_manifest(tmp_path / "whole")["made_with"]
    assert made_with["tf32"] is False and made_with["device"] == "cpu"
    assert (
        len(pictures(tmp_path / "whole"))
        == len(grid(p))
        == len(set(pictures(tmp_path / "whole").values()))
        == 8
    )
    made_by = read_manifest(tmp_path / "whole")["run"]
    assert made_by == {"method": "ip2p", "data": "mini:7", "photo_guidance": 1.2}

    photo = CanvasImages("mini:7", [(canvas.PHOTO, "Sea")], (20,), 16)[0]["image"][None]
    cell = ("Sketch", "Sea", 20)
    expected = ip2p.edit(
        load_sd(editor), photo, ["Transform the image to Sketch style."], [cell], 4, 3.0, 1.2
    )[0]
    found = pixels(tmp_path / "whole" / canvas.answer_name(*cell)).astype(int)
    assert np.abs(found - expected).max() <= 1  # drawn in a batch of three there, alone here

    monkeypatch.setattr(ip2p, "edit", tiny.interrupt(ip2p.edit, 1))
    with pytest.raises(SystemExit, match="130"):
        run(*words, "--out", tmp_path / "parts")
    monkeypatch.undo()
    assert len(pictures(tmp_path / "parts")) == 3
    run(*words, "--out", tmp_path / "parts")
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")


def test_edited_answers_of_other_settings_are_not_mixed(editor, protocol_file, tmp_path, capsys):
    words = ("--model", editor, "--protocol", protocol_file, "--out", tmp_path)
    run(*words, "--data", "mini", "--photos", 19)
    assert protocol_of(tmp_path).photo_guidance == 1.2
    photos = [
        CanvasImages(data, [(canvas.PHOTO, o) for o in ("Cats", "Sea")], (19,), 16)
        for data in ("mini", "mini:1")
    ]
    digests = [sampler.digest_of(images) for images in photos]
    assert protocol_of(tmp_path).photos == digests[0] != digests[1]
    for more in (("--data", "mini:1"), ("--data", "mini", "--photo-guidance", 2), ("--guidance", 9)):
        with pytest.raises(SystemExit) as exit:
            run(*words, "--photos", 19, *more)
        assert exit.value.code == 2 and "holds an answer set of another protocol" in capsys.readouterr().err
    assert len(pictures(tmp_path)) == 4


def test_the_judges_accept_edited_answers(editor, tmp_path, capsys):
    """Of the miniature's own size and names, so that its classifiers are found."""
    content = asdict(replace(protocol.load("mini"), themes=("Rust",), objects=("Cats",), targets=(), steps=1))
    content = {key: list(v) if isinstance(v, tuple) else v for key, v in content.items() if key != "name"}
    OmegaConf.save(OmegaConf.create(content), tmp_path / "one.yaml")
    run("--model", editor, "--protocol", tmp_path / "one.yaml", "--out", tmp_path / "answers", "--photos", 19)
    predict.main([str(tmp_path / "answers"), "--device", "cpu"])
    assert "1 images; asked style seen in" in capsys.readouterr().out
    assert (tmp_path / "answers/predictions.csv.gz").exists()
    assert json.loads((tmp_path / "answers/manifest.json").read_text())["protocol"]["name"] == "one-edit"


@pytest.mark.parametrize(
    "words, message",
    [
        (("--steps", 3), "an answer set has its protocol's"),
        (("--protocol", "canvvas"), "--protocol canvvas"),
    ],
)
def test_refusals(words, message, tiny_sd, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        run("--model", tiny_sd, "--out", tmp_path / "out", *words)
    assert exit.value.code == 2 and message in capsys.readouterr().err


def test_an_editor_needs_a_photo(editor, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--model", editor, "--prompt", "Rust style", "--out", tmp_path / "a.png")
    assert "--photo is missing" in capsys.readouterr().err


def test_a_block_whose_claim_was_lost_is_left_to_who_took_it_over(tmp_path):
    """While this process was held up, another drew it: its images stay, and nothing is logged twice."""
    world = synthetic.protocol(seeds=(1,), size=8)
    answers = AnswerSet(tmp_path, world, "m" * 16, None, block=4)
    drawn = []

    def draw(cells):
        drawn.append(cells)
        if len(drawn) == 1:
            claim = tmp_path / ".claim-0"
            claim.unlink()
            claim.write_text("elsewhere 7")
            for cell in cells:
                answers.path(Cell(*cell)).write_bytes(b"theirs")
        return np.zeros((len(cells), 8, 8, 3), np.uint8)

    written = drawing.fill(drawing.Drawing(draw, torch.device("cpu")), answers)
    theirs = [path for path in tmp_path.glob("*.png") if path.read_bytes() == b"theirs"]
    assert len(theirs) == 4 and written == len(grid(world)) - 4 and not answers.missing()
    assert sum(line["images"] for line in read_json_lines(tmp_path / "sampling.jsonl")) == written
    assert (tmp_path / ".claim-0").read_text() == "elsewhere 7"
