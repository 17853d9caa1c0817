"""The miniature's encoder: folding and normalising change nothing that a layer's successor sees."""

import torch

from style_transfer import train_encoder
from style_transfer.core import losses, vgg
from tests.style_transfer import narrow

WIDTHS = (4, 4, 8, 8, 8)


def images(count=4):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_folded_normalisation_changes_nothing():
    network = train_encoder.with_batch_norm(encoder := narrow.lively(vgg.Encoder(WIDTHS)))
    for _ in range(3):
        network.train()(images(8))
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    wanted = network.eval()(images()).detach()
    train_encoder.fold(network)
    made = torch.nn.Sequential.forward(encoder, images())
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)


def test_every_active_channel_has_mean_one():
    encoder = narrow.lively(vgg.Encoder(WIDTHS)).requires_grad_(False)
    before = encoder(images())
    train_encoder.normalise(encoder, images())
    after = encoder(images())
    for old, new in zip(before, after):
        mean, active = new.mean((0, 2, 3)), old.mean((0, 2, 3)) > 1e-3
        torch.testing.assert_close(mean[active], torch.ones(int(active.sum())), rtol=1e-3, atol=1e-3)
        scale = old.mean((0, 2, 3), keepdim=True)
        torch.testing.assert_close((new * scale)[:, active], old[:, active], rtol=1e-3, atol=1e-3)


def test_the_command_writes_a_file_that_the_losses_load(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_encoder.mini_canvas, "THEMES", ["Rust", "Sketch"])
    monkeypatch.setattr(train_encoder.mini_canvas, "OBJECTS", ["Cats", "Sea"])
    monkeypatch.setattr(train_encoder, "CALIBRATION", 1)
    out = tmp_path / "vgg_normalised.pth"
    flags = ["--per-object", "4", "--out", str(out), "steps=2", "batch=8", "warmup=1", "width=0.0625"]
    train_encoder.main(flags)
    assert losses.load_encoder(out)[2].out_channels == 4
    assert "held-out images: style" in capsys.readouterr().out
    train_encoder.main(flags)
    assert "already trained" in capsys.readouterr().out
