"""CSD, CLIP and DINO from local files: the embeddings of the libraries' own networks, and what is refused."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import Compose, Normalize
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from evaluation.core.errors import UserError
from evaluation.mini import dataset as mini
from style_transfer import evaluate
from style_transfer.core import embeddings, losses

VISION = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
OPENAI = Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small CSD, CLIP and DINOv2; -> their paths, and what they make of images."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    sizes = {"layers": 3, "width": 64, "head_width": 64, "patch_size": 8, "image_size": 32}
    words = {"context_length": 7, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1}
    visual = open_clip.CLIP(24, sizes, words, quick_gelu=True).visual.eval()
    state = {f"module.backbone.{name}": t for name, t in visual.state_dict().items() if name != "proj"}
    state |= {"module.last_layer_style": visual.proj, "module.last_layer_content": visual.proj.flip(0)}
    torch.save({"model_state_dict": state, "epoch": 3}, folder / "csd.pth")
    clip = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)).eval()
    clip.save_pretrained(folder / "clip")
    dino = Dinov2Model(Dinov2Config(**VISION)).eval()
    dino.save_pretrained(folder / "dino")
    imagenet = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    made = {
        "csd.pth": ("CSD", Compose([OPENAI, visual])),
        "clip": ("CLIP", lambda x: clip.get_image_features(OPENAI(x)).pooler_output),
        "dino": ("DINO", lambda x: dino(imagenet(x)).last_hidden_state[:, 0]),
    }
    return folder, made


@pytest.mark.parametrize("file", ["csd.pth", "clip", "dino"])
def test_embeddings(file, files, images):
    folder, made = files
    name, embed = embeddings.load(folder / file, "--style-encoder", "cpu", torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(embed(images), made[file][1](images), rtol=1e-4, atol=1e-5)
        larger = F.interpolate(images, (64, 64))
        smaller = F.interpolate(larger, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
        torch.testing.assert_close(embed(larger), made[file][1](smaller), rtol=1e-4, atol=1e-5)
    assert name == made[file][0]


def test_cosine_distance():
    x, y = torch.tensor([[1.0, 0], [1, 0], [1, 0]]), torch.tensor([[2.0, 0], [0, 3], [-1, 0]])
    torch.testing.assert_close(losses.cosine_distance(x, y), torch.tensor([0.0, 1, 2]))


def test_in_the_command(files, tmp_path, capsys):
    folder, out = files[0], tmp_path / "out" / "Rust"
    out.mkdir(parents=True)
    for content in (19, 20):
        for reference in (1, 2, 3):  # the ground truth itself
            mini.image("Rust", "Cats", content).save(out / f"Cats_test{content}_ref{reference}.png")
    words = [out.parent, "--data", "mini", "--styles", "Rust", "--objects", "Cats"]
    words += ["--style-encoder", folder / "csd.pth", "--content-encoder", folder / "dino"]
    evaluate.main([str(word) for word in words])
    means = {
        name: figures["mean"]
        for name, figures in json.loads((tmp_path / "out/losses-partial.json").read_text())["summary"].items()
    }
    for name in ("CSD_style", "DINO_content"):
        assert means[f"{name}_truth"] == pytest.approx(0, abs=1e-6)
    assert means["CSD_style_reference"] > 1e-5 < means["DINO_content_photo"]


def test_unfit_files(files, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    state = torch.load(files[0] / "csd.pth", weights_only=True)["model_state_dict"]
    del state["module.backbone.ln_post.weight"]
    torch.save({"model_state_dict": state}, tmp_path / "cut.pth")
    (tmp_path / "empty").mkdir()
    for name, text in {
        "other.pth": "not the weights of CSD",
        "cut.pth": "not the weights of CSD",
        "empty": "no CLIP or DINO in transformers' form",
    }.items():
        with pytest.raises(UserError, match=f"--style-encoder .*{name}: {text}"):
            embeddings.load(tmp_path / name, "--style-encoder", "cpu", torch.float32)
