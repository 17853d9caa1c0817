"""Both training scripts, a few steps on drawn images: what they write, and that resuming changes nothing."""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file

from diffusion_model_finetuning import train_sd, train_vae
from diffusion_model_finetuning.core import training
from tests import tiny


def run_sd(folder, *overrides):
    folder.mkdir(exist_ok=True)
    if not (folder / "vae").exists():
        tiny.save_vae(folder)
    settings = tiny.settings_file(folder)
    train_sd.main(
        ["--settings", settings, "--data", "mini", "--out", str(folder), "--device", "cpu", *overrides]
    )
    return folder


def weights(folder):
    return {
        f"{part}.{name}": tensor
        for part in ("unet", "vae", "text_encoder")
        for path in (folder / part).glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_sd(tmp_path_factory.mktemp("sd") / "whole")


def test_resumed_sd_training_changes_nothing(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(train_sd, "diffusion_loss", tiny.interrupt(train_sd.diffusion_loss, 3))
    with pytest.raises(KeyboardInterrupt):  # after three steps, one more than was saved
        run_sd(tmp_path / "sd")
    assert (tmp_path / "sd/.training/sd/step-2").is_dir() and not (tmp_path / "sd/model_index.json").exists()
    monkeypatch.undo()
    calls = []
    monkeypatch.setattr(
        training,
        "set_lr",
        lambda optimizer, lr, real=training.set_lr: (calls.append(lr), real(optimizer, lr)),
    )
    resumed = run_sd(tmp_path / "sd")
    assert len(calls) == 2  # steps 3 and 4 only
    assert not (resumed / ".training/sd").exists()
    assert tiny.changed(weights(uninterrupted), weights(resumed)) == set()


def test_sd_training_trains_unet_and_text_but_not_the_vae(uninterrupted, tmp_path):
    untrained = run_sd(tmp_path / "sd", "steps=0")
    moved = tiny.changed(weights(untrained), weights(uninterrupted))
    assert {name.partition(".")[0] for name in moved} == {"unet", "text_encoder"}
    frozen = run_sd(tmp_path / "frozen", "text_encoder=frozen")
    moved = tiny.changed(weights(untrained), weights(frozen))
    assert {name.partition(".")[0] for name in moved} == {"unet"}


def test_result_loads_in_diffusers_and_samples(uninterrupted, capsys):
    assert json.loads((uninterrupted / "canvas.json").read_text()) == tiny.CARD
    pipe = StableDiffusionPipeline.from_pretrained(uninterrupted, torch_dtype=torch.float32)
    assert pipe.text_encoder.dtype == pipe.unet.dtype == pipe.vae.dtype == torch.float32
    pipe.set_progress_bar_config(disable=True)
    images = pipe("Rust style", num_inference_steps=2, height=16, width=16, output_type="np").images
    assert images.shape == (1, 16, 16, 3)
    run_sd(uninterrupted)
    assert "already trained" in capsys.readouterr().out


def test_model_is_named_when_settings_do_not_start_from_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        train_sd.main(["--settings", "sd15", "--data", "mini", "--out", str(tmp_path), "--device", "cpu"])
    assert exit.value.code == 2 and "--model is missing" in capsys.readouterr().err


def test_vae_training_and_its_resumption(tmp_path, monkeypatch):
    def run(name):
        out = tmp_path / name
        settings = tiny.settings_file(tmp_path)
        train_vae.main(["--settings", settings, "--data", "mini", "--out", str(out), "--device", "cpu"])
        return load_file(out / "vae/diffusion_pytorch_model.safetensors")

    whole = run("whole")
    monkeypatch.setattr(train_vae, "vae_loss", tiny.interrupt(train_vae.vae_loss, 3))
    with pytest.raises(KeyboardInterrupt):
        run("resumed")
    monkeypatch.undo()
    assert tiny.changed(whole, run("resumed")) == set()
    assert not (tmp_path / "resumed/.training/vae.pt").exists()

    vae = AutoencoderKL.from_pretrained(tmp_path / "whole/vae", torch_dtype=torch.float32)
    pixels = training.load_pixels(training.images("mini", 1, 32)).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, rel=0.02)


def test_unknown_setting_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_sd(tmp_path / "sd", "stepps=3")
    assert "did you mean steps" in capsys.readouterr().err


def test_vae_loss_by_hand():
    class Latents:
        mean, std, var, logvar = (
            torch.full((2, 1), 2.0),
            torch.ones(2, 1),
            torch.ones(2, 1),
            torch.zeros(2, 1),
        )

    class Vae:  # encodes to N(2, 1) and decodes to zeros
        def encode(self, images):
            return SimpleNamespace(latent_dist=Latents)

        def decode(self, latents):
            return SimpleNamespace(sample=torch.zeros(2, 3, 4, 4))

    flat, stripes = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0.5, -0.5]).repeat(2, 3, 4, 2)
    plain = 0.5 + 0.5 * 0.25 + 0.1 * 0.5 * 4  # |r| + r^2 / 2 + kl KL
    assert float(train_vae.vae_loss(Vae(), flat, 0.1)) == pytest.approx(plain)
    assert float(train_vae.vae_loss(Vae(), stripes, 0.1)) == pytest.approx(plain + 1)  # |dr| along rows
