"""What training reads: shuffled batches, cached moments, captions."""

from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from diffusion_model_finetuning.core.data import Captions, cached_moments, forever
from diffusion_model_finetuning.core.sd import load_sd
from evaluation import canvas
from evaluation.data.images import CanvasImages

CELLS = [("Rust", "Cats"), (canvas.PHOTO, "Sea")]


@pytest.mark.parametrize("count, batch", [(10, 3), (12, 4), (3, 8)])
def test_every_item_once_an_epoch(count, batch):
    epochs = 4
    drawn = torch.cat(list(islice(forever(count, batch, seed=1), epochs * count)))[: epochs * count]
    orders = drawn.view(epochs, count)
    assert all(sorted(order.tolist()) == list(range(count)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) > 1  # reshuffled


def test_batches_are_reproducible_and_resume():
    first = torch.stack(list(islice(forever(10, 3, seed=7), 9)))
    assert torch.equal(first, torch.stack(list(islice(forever(10, 3, seed=7), 9))))
    assert torch.equal(first[5:], torch.stack(list(islice(forever(10, 3, seed=7, start=5), 4))))
    assert not torch.equal(first, torch.stack(list(islice(forever(10, 3, seed=8), 9))))


def test_moments_are_cached_and_right(tiny_sd, tmp_path, monkeypatch):
    sd, images = load_sd(tiny_sd), CanvasImages("mini", CELLS, (1, 2), 16)
    moments = cached_moments(sd, images, tmp_path, flip=True, batch=3)
    pixels = torch.stack([images[i]["image"] for i in range(4)])
    expected = torch.cat([sd.moments(pixels), sd.moments(pixels.flip(-1))])
    torch.testing.assert_close(moments.float(), expected, rtol=2e-3, atol=2e-3)
    (path,) = tmp_path.glob("*.safetensors")

    monkeypatch.setattr(sd, "moments", None)  # must not be needed again
    assert torch.equal(cached_moments(sd, images, tmp_path, flip=True), moments)
    monkeypatch.undo()

    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(cached_moments(sd, images, tmp_path, flip=True, batch=3), moments)
    assert torch.equal(load_file(path)["moments"], moments)

    sd.vae.quant_conv.bias.data[0] += 1.0
    other = cached_moments(sd, images, tmp_path, flip=True)
    assert not torch.allclose(other, moments) and len(list(tmp_path.glob("moments-*"))) == 2


def test_captions_shares_and_dropout():
    rows = [(*CELLS[0], 1), (*CELLS[1], 1), (*CELLS[0], 2)]
    captions = Captions({"A {object} in {theme}.": 3.0, "{theme} style": 1.0}, rows)
    generator = torch.Generator().manual_seed(0)
    many = captions.draw(torch.full((20_000,), 1), 0.2, generator)
    texts = [captions.texts[i] for i in many.tolist()]
    share = {text: texts.count(text) / len(texts) for text in set(texts)}
    assert share == pytest.approx({"": 0.2, "A Sea in Photo.": 0.6, "Photo style": 0.2}, abs=0.015)
    drawn = captions.draw(torch.tensor([0, 1, 2]), 0.0, generator)
    assert [captions.texts[i].replace("A Cats in ", "").split()[0].strip(".") for i in drawn][::2] == [
        "Rust",
        "Rust",
    ]
    assert len(captions.texts) == len(set(captions.texts)) and captions.texts[0] == ""
