"""The miniature's encoder: folding and normalising change nothing that a layer's successor sees."""

import pytest
import torch

from evaluation.core import checkpoint
from style_transfer import train_encoder
from style_transfer.core import vgg
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
    train_encoder.normalise(encoder, vgg.decoder(WIDTHS).requires_grad_(False), images())
    after = encoder(images())
    for old, new in zip(before, after):
        mean, active = new.mean((0, 2, 3)), old.mean((0, 2, 3)) > 1e-3
        torch.testing.assert_close(mean[active], torch.ones(int(active.sum())), rtol=1e-3, atol=1e-3)
        scale = old.mean((0, 2, 3), keepdim=True)
        torch.testing.assert_close((new * scale)[:, active], old[:, active], rtol=1e-3, atol=1e-3)


def test_the_decoder_takes_normalised_features():
    encoder, decoder = narrow.lively(vgg.Encoder(WIDTHS)), narrow.lively(vgg.decoder(WIDTHS))
    encoder.requires_grad_(False), decoder.requires_grad_(False)
    wanted = decoder(encoder(images(), 4)[3])
    train_encoder.normalise(encoder, decoder, images())
    torch.testing.assert_close(decoder(encoder(images(), 4)[3]), wanted, rtol=1e-3, atol=1e-4)


@pytest.fixture
def flags(monkeypatch):
    monkeypatch.setattr(train_encoder.mini, "THEMES", ["Rust", "Sketch"])
    monkeypatch.setattr(train_encoder.mini, "OBJECTS", ["Cats", "Sea"])
    monkeypatch.setattr(train_encoder, "CALIBRATION", 1)
    return ["--per-object", "4", "steps=3", "batch=8", "warmup=1", "width=0.0625", "--out"]


def test_the_command_writes_files_that_the_trainings_load(tmp_path, capsys, flags):
    train_encoder.main([*flags, str(tmp_path)])
    assert vgg.load_encoder(tmp_path / vgg.ENCODER)[2].out_channels == 4
    vgg.decoder(vgg.scaled(1 / 16)).load_state_dict(torch.load(tmp_path / vgg.DECODER, weights_only=True))
    said = capsys.readouterr().out
    assert "held-out images: style" in said
    assert "of the pixels' variance" in said
    train_encoder.main([*flags, str(tmp_path)])
    assert "already trained" in capsys.readouterr().out


def test_the_image_teaches_the_encoder_too(tmp_path, flags):
    for weight in (0, 10):
        train_encoder.main([*flags, str(tmp_path / str(weight)), f"image={weight}"])
    zero, ten = (torch.load(tmp_path / name / vgg.ENCODER, weights_only=True) for name in ("0", "10"))
    assert not torch.equal(zero["2.weight"], ten["2.weight"])


def test_a_file_in_place_of_the_folder_is_named(tmp_path, flags, capsys):
    (tmp_path / "file.pth").write_text("")
    with pytest.raises(SystemExit) as stop:
        train_encoder.main([*flags, str(tmp_path / "file.pth")])
    assert stop.value.code == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_a_stopped_command_goes_on_as_if_it_had_not(tmp_path, flags, monkeypatch):
    train_encoder.main([*flags, str(tmp_path / "whole")])
    monkeypatch.setattr(checkpoint, "SECONDS", -1)
    through = checkpoint.Checkpoint.save

    def stop(self, step):
        through(self, step=step)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoint, "save", stop)
    with pytest.raises(SystemExit, match="130"):
        train_encoder.main([*flags, str(tmp_path / "stopped")])
    assert not (tmp_path / "stopped" / vgg.ENCODER).exists()
    monkeypatch.setattr(checkpoint.Checkpoint, "save", through)
    train_encoder.main([*flags, str(tmp_path / "stopped")])
    for file in (vgg.ENCODER, vgg.DECODER):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not list((tmp_path / "stopped").glob(".*"))
