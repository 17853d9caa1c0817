"""CLIP similarities of edited photos, with a tiny random CLIP."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from evaluation import canvas, clip_score, generators
from evaluation.answers.predictions import read_predictions
from evaluation.clip_score import Clip, similarities
from evaluation.core.errors import UserError
from evaluation.core.files import digest, write_json
from evaluation.data.images import to_tensor
from evaluation.mini import dataset as mini
from tests import synthetic

CELLS = [("Rust", "Cats"), ("Rust", "Sea"), ("Sketch", "Cats"), ("Sketch", "Sea")]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return build_clip(tmp_path_factory.mktemp("clip"))


def build_clip(folder):
    """Writes a tiny CLIP of random weights."""
    tokenizer = AutoTokenizer.from_pretrained("checkpoints/mini/tokenizer", local_files_only=True)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.5,
    }
    text = shape | {"vocab_size": len(tokenizer), "max_position_embeddings": 32} | ids
    vision = shape | {"image_size": 24, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    for parameter in model.parameters():  # far from the small start of training, where all features agree
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def answers(tmp_path):
    """Edits of photos 19 and 20 of the miniature: its own paintings of them."""
    for theme, obj in CELLS:
        for number in (19, 20):
            mini.image(theme, obj, number).save(tmp_path / canvas.answer_name(theme, obj, number))
    return tmp_path


def test_cosines_of_known_vectors():
    """An edit that moves as its caption does has direction 1, whatever else it is."""
    photo, word = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 0]])
    edited, caption = torch.tensor([[0.6, 0.8, 0]]), torch.tensor([[-0.6, 0.8, 0]])
    found = similarities(edited, caption, photo, word)
    assert {name: pytest.approx(value.item(), abs=1e-6) for name, value in found.items()} == {
        "text": -0.36 + 0.64,
        "photo": 0.6,
        "direction": (0.4 * 0.6 - 0.8 * 0.2) / (0.8**0.5 * 0.4**0.5),
    }
    along = similarities(photo + (caption - word), caption, photo, word)["direction"]
    against = similarities(photo - (caption - word), caption, photo, word)["direction"]
    assert along.item() == pytest.approx(1) and against.item() == pytest.approx(-1)
    assert similarities(edited, caption).keys() == {"text"}


def test_features_are_transformers_own(clip_folder):
    clip = Clip(clip_folder, "cpu")
    captions, images = ["A Cats image in Rust style.", "sea"], torch.rand(2, 3, 24, 24)
    tokens = clip.tokenizer(captions, padding="max_length", max_length=32, return_tensors="pt")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        whole = clip.model(**tokens, pixel_values=(images - mean) / std)
    torch.testing.assert_close(clip.texts(captions), whole.text_embeds)
    torch.testing.assert_close(clip.images(images), whole.image_embeds)
    larger = clip.images(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(larger.norm(dim=1), torch.ones(2))


def test_an_answer_set_of_edits(clip_folder, answers, capsys, monkeypatch):
    monkeypatch.setattr(clip_score, "BATCH", 3)
    clip_score.main([str(answers), "--clip", str(clip_folder), "--data", "mini", "--device", "cpu"])
    result = json.loads((answers / "clip.json").read_text())
    assert result["images"] == 8 and list(result["themes"]["direction"]) == ["Rust", "Sketch"]
    clip, expected = Clip(clip_folder, "cpu"), []
    for theme, obj in CELLS[:2]:
        for number in (19, 20):
            pictures = [to_tensor(mini.image(t, obj, number))[None] for t in (theme, canvas.PHOTO)]
            (i1, i0), (t1, t0) = (
                torch.cat([clip.images(picture) for picture in pictures]),
                clip.texts([f"A {obj} image in {name} style." for name in ("Rust", "Photo")]),
            )
            expected.append(torch.nn.functional.cosine_similarity(i1 - i0, t1 - t0, dim=0).item())
    assert result["themes"]["direction"]["Rust"] == pytest.approx(sum(expected) / 4, abs=1e-5)
    for figure, mean in result["mean"].items():
        assert mean == pytest.approx(sum(result["themes"][figure].values()) / 2, abs=1e-6)
    assert "direction" in capsys.readouterr().out


def test_without_photos_and_with_a_manifests(clip_folder, answers):
    clip = Clip(clip_folder, "cpu")
    assert clip_score.scores(answers, clip, None)["mean"].keys() == {"text"}
    assert clip_score.edited_data(answers) is None
    write_json(answers / "manifest.json", {"run": {"method": "ip2p", "data": "mini"}})
    assert clip_score.edited_data(answers) == "mini"
    write_json(answers / "manifest.json", {"run": None})
    assert clip_score.edited_data(answers) is None


def test_refusals(clip_folder, answers, tmp_path):
    with pytest.raises(UserError, match="no CLIP model"):
        Clip(tmp_path, "cpu")
    with pytest.raises(UserError, match=r"not a complete CLIP model|not the weights of a CLIP model"):
        Clip("checkpoints/mini/text_encoder", "cpu")
    clip = Clip(clip_folder, "cpu")
    with pytest.raises(UserError, match="no images"):
        clip_score.scores(clip_folder, clip, None)
    Image.new("RGB", (64, 64)).save(answers / canvas.answer_name("Rust", "Cats", 188))
    with pytest.raises(UserError, match="seed188 in a file name is no photo's number"):
        clip_score.scores(answers, clip, "mini")


def test_the_table_of_models(tmp_path, capsys):
    protocol = synthetic.protocol(count_photo=False)
    synthetic.answer_set(tmp_path, protocol, see=lambda cell: ("Monet", cell.object))
    row = generators.row_of(tmp_path)
    assert row["object"] == 100 and row["style"] == pytest.approx(100 / len(protocol.counted))
    assert "FID" not in row and "direction" not in row
    origin = {"images": digest([row.sha256 for row in read_predictions(tmp_path)[0]])}
    content = {"values": {"": {"fid": 12.345, "kid": 0.01}, "Cats": {"fid": 9.0}}, "made_with": {}}
    write_json(tmp_path / "fid.json", content | {"origin": origin | {"images": "earlier"}})
    with pytest.raises(UserError, match="of earlier images"):
        generators.row_of(tmp_path)
    write_json(tmp_path / "fid.json", content | {"origin": origin})
    write_json(tmp_path / "clip.json", {"mean": {"text": 0.25, "photo": 0.75, "direction": 0.125}})
    generators.main([str(tmp_path)])
    header, _, line = capsys.readouterr().out.splitlines()
    cells = [text.strip() for text in line.strip("|").split("|")]
    found = dict(zip((text.strip() for text in header.strip("|").split("|")), cells, strict=True))
    assert (found["FID"], found["KID"], found["text"], found["photo"], found["direction"]) == (
        "12.35",
        "0.0100",
        "0.2500",
        "0.7500",
        "0.1250",
    )


def test_images_of_several_sizes_and_names(clip_folder, answers):
    clip = Clip(clip_folder, "cpu")
    before = clip_score.scores(answers, clip, None)["mean"]["text"]
    first, second, *_ = sorted(answers.glob("*_seed*.png"))
    Image.open(first).resize((100, 50)).save(first)
    assert abs(clip_score.scores(answers, clip, None)["mean"]["text"] - before) < 0.1
    second.rename(second.with_suffix(".PNG"))
    (answers / "Thumbs.db").write_bytes(b"?")
    assert clip_score.scores(answers, clip, None)["images"] == 8
    Image.open(first).save(first.with_suffix(".jpg"))
    with pytest.raises(UserError, match=f"{first}: of the same theme"):
        clip_score.answers_in(answers)
    first.with_suffix(".jpg").unlink()
    first.write_bytes(b"")
    with pytest.raises(UserError, match=f"{first}: not a readable image"):
        clip_score.scores(answers, clip, None)
