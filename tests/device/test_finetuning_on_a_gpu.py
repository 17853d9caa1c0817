"""The four trainers, each stopped and gone on with, against the CPU's training that was not stopped."""

import json

import pytest
from safetensors.torch import load_file

from diffusion_model_finetuning.core.ip2p import inflate
from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.tensors import read_content
from tests import tiny
from tests.device.worker import distance
from tests.diffusion_model_finetuning.test_compvis import MODULE, SETTINGS

PACKAGE = "diffusion_model_finetuning"


def trained(worker, folder, name, *words, stop=None):
    """Runs a trainer of that name, first with a stop; -> its folder."""
    folder.mkdir()
    if name == "train_sd" and "--model" not in words:
        tiny.save_vae(folder)
    words = ["--settings", tiny.settings_file(folder), "--data", "mini", "--out", folder, *words]
    if stop:
        worker.run(f"{PACKAGE}.{name}", *words, stop=stop)
    worker.run(f"{PACKAGE}.{name}", *words)
    return folder


@pytest.mark.parametrize("text", ["train", "frozen"])
def test_stable_diffusion(text, gpu, cpu, tiny_sd, tmp_path):
    words = ["--model", tiny_sd, f"text_encoder={text}", "half=false", "workers=0", "validate.every=4"]
    stop = f"{PACKAGE}.train_sd.noise_loss", 3
    got = trained(gpu, tmp_path / "gpu", "train_sd", *words, stop=stop)
    wanted = trained(cpu, tmp_path / "cpu", "train_sd", *words)
    networks = [load_sd(folder).unet.state_dict() for folder in (got, wanted, tiny_sd)]
    assert distance(*networks) < gpu.far
    assert (got / ".training/sd-images/step-4.png").exists()
    assert json.loads((got / ".training/sd.json").read_text())["made_with"]["tf32"] is False
    moments = [[path.name for path in folder.glob(".training/moments-*")] for folder in (got, wanted)]
    assert len(moments[0]) == 1 and moments[0] == moments[1]  # encoded on one device, found by the other


def test_stable_diffusion_from_nothing_in_half_precision(gpu, tmp_path):
    """The scaler of gradients, which only float16 has, is kept and resumed, too."""
    words = ["workers=0", "precision=fp16", "gradient_checkpointing=true", "min_snr=5"]
    out = trained(gpu, tmp_path / "gpu", "train_sd", *words, stop=(f"{PACKAGE}.train_sd.noise_loss", 3))
    assert (out / "model_index.json").exists()


def test_instruct_pix2pix(gpu, cpu, tiny_sd, tmp_path):
    words, stop = ["--model", tiny_sd, "validate.every=4"], (f"{PACKAGE}.train_ip2p.noise_loss", 3)
    got = trained(gpu, tmp_path / "gpu", "train_ip2p", *words, stop=stop)
    wanted = trained(cpu, tmp_path / "cpu", "train_ip2p", *words)
    begun = load_sd(tiny_sd)
    inflate(begun)
    networks = [load_sd(folder).unet.state_dict() for folder in (got, wanted)]
    assert distance(*networks, begun.unet.state_dict()) < gpu.far


def test_autoencoder(gpu, cpu, tmp_path):
    got = trained(gpu, tmp_path / "gpu", "train_vae", stop=(f"{PACKAGE}.train_vae.vae_loss", 3))
    wanted = trained(cpu, tmp_path / "cpu", "train_vae")
    tiny.save_vae(tmp_path)
    states = [load_file(f / "vae/diffusion_pytorch_model.safetensors") for f in (got, wanted, tmp_path)]
    assert distance(*states) < gpu.far + 1e-2  # they are stored in float16


@pytest.mark.parametrize("base", ["mini_sd", "mini_ip2p"])
def test_compvis(base, gpu, cpu, tiny_sd, tmp_path):
    def run(worker, stop=None):
        words = ["--base", base, *SETTINGS, "--name", worker.device, "--model", tiny_sd, "--data", "mini"]
        kind = "gpu" if worker.device == "cuda" else "cpu"
        words += ["--logs", tmp_path, f"lightning.trainer.accelerator={kind}"]
        worker.call(MODULE, *words, stop=stop)

    run(gpu, (f"{PACKAGE}.compvis.module.LatentDiffusion.optimizer_step", 3))
    run(gpu)
    run(cpu)
    files, begun = [tmp_path / name / "model.ckpt" for name in ("cuda", "cpu")], load_sd(tiny_sd)
    assert read_content(files[0])["made_with"]["tf32"] is False
    if base == "mini_ip2p":
        inflate(begun)
    averages = [load_sd(file, config=tiny_sd, weights="ema").unet.state_dict() for file in files]
    assert distance(*averages, begun.unet.state_dict()) < gpu.far
