"""Images drawn by the model: once, the same after a stop, and others for whatever changes them."""

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.errors import UserError
from evaluation.data.images import to_tensor
from machine_unlearning.core import concepts, embeddings, generated
from tests import tiny

PROMPTS = ["A Cats image in Sketch style.", "Rust style", "photo of Sea", "Rust style", "Towers"]
SETTINGS = {
    "walk": 2,
    "guidance": 3.0,
    "image_seed": 42,
    "precision": "float32",
    "size": 16,
    "resize": "bilinear",
}
RESIZES = ("bilinear", "bicubic")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(generated, "per_batch", lambda size: 2)


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


def settings(**changes):
    return OmegaConf.create(SETTINGS | changes)


def draw(sd, prompts=PROMPTS, **changes):
    """-> folder, bytes of the images."""
    images = generated.draw(sd, prompts, settings(**changes))
    return images.root, [images.path(i).read_bytes() for i in range(len(images))]


def test_drawn_and_encoded_once(sd, monkeypatch):
    moments = generated.generated_moments(sd, PROMPTS, settings())
    assert moments.shape == (5, 8, 8, 8) and moments.dtype == torch.float16
    monkeypatch.setattr(generated, "sample", tiny.interrupt(generated.sample, 0))
    monkeypatch.setattr(type(sd), "moments", tiny.interrupt(type(sd).moments, 0))
    assert torch.equal(generated.generated_moments(sd, PROMPTS, settings()), moments)


def test_the_same_images_after_a_stop(sd, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(generated, "sample", tiny.interrupt(generated.sample, 1))
        with pytest.raises(KeyboardInterrupt):
            draw(sd)
    folder, resumed = draw(sd)
    (tmp_path / "cache").rename(tmp_path / "first")
    again, whole = draw(sd)
    assert (folder, resumed) == (again, whole)
    assert whole[1] != whole[3]  # one prompt, two images


def test_what_tells_sets_of_images_apart(sd, tmp_path):
    other = load_sd(tiny.build_sd(tmp_path / "other", seed=1))
    sets = [draw(sd), draw(other), draw(sd, PROMPTS[:4]), draw(sd, walk=3), draw(sd, image_seed=7)]
    sets.append(draw(sd, guidance=1.0))
    assert len({folder for folder, _ in sets}) == len({images[0] for _, images in sets}) + 1 == 6
    assert draw(sd, size=8) == sets[0]  # drawn at the model's size whatever the size they are read at


def test_read_as_the_resize_says(sd):
    read = [generated.draw(sd, PROMPTS, settings(size=8, resize=how))[0]["image"] for how in RESIZES]
    drawn = Image.open(generated.draw(sd, PROMPTS, settings()).path(0))
    for image, how in zip(read, RESIZES, strict=True):
        assert torch.equal(image, to_tensor(drawn.resize((8, 8), Image.Resampling[how.upper()])))
    moments = [generated.generated_moments(sd, PROMPTS, settings(size=8, resize=how)) for how in RESIZES]
    assert not torch.equal(*read) and not torch.equal(*moments)


def test_mirrored_and_resized(sd):
    plain = generated.generated_moments(sd, PROMPTS, settings())
    both = generated.generated_moments(sd, PROMPTS, settings(), flip=True)
    assert torch.equal(both[:5], plain)
    images = generated.draw(sd, PROMPTS, settings())
    mirrored = torch.stack([images[i]["image"].flip(-1) for i in range(5)])
    torch.testing.assert_close(both[5:].float(), sd.moments(mirrored), rtol=1e-2, atol=1e-3)
    assert generated.generated_moments(sd, PROMPTS, settings(size=8)).shape == (5, 8, 4, 4)


def test_a_damaged_image_is_named(sd):
    images = generated.draw(sd, PROMPTS, settings())
    images.path(3).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"00003\.png: not a readable image"):
        generated.generated_moments(sd, PROMPTS, settings())


def test_spread():
    assert concepts.spread([*"abcd"], 4) == [*"abcd"]
    assert concepts.spread([*"abcd"], 2) == ["a", "c"]
    assert concepts.spread([*"ab"], 6) == [*"aaabbb"]
    assert len(set(concepts.spread([*range(1020)], 1000))) == 1000
