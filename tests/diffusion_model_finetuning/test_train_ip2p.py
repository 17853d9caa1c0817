"""InstructPix2Pix training: zero inflation, dropout, one flip for both images, and what the script writes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image
from safetensors.torch import load_file

from diffusion_model_finetuning import train_ip2p
from diffusion_model_finetuning.core import ip2p, training
from diffusion_model_finetuning.core.data import cached_moments
from diffusion_model_finetuning.core.sd import StableDiffusion, eps, load_sd, noise_of
from evaluation import canvas
from evaluation.core.errors import UserError
from tests import tiny

REPOSITORY = Path(__file__).parent.parent.parent


def arguments(folder, model, *more):
    folder.mkdir(parents=True, exist_ok=True)
    texts = ["--settings", tiny.settings_file(folder), "--model", model, "--data", "mini"]
    return [*map(str, [*texts, "--out", folder, "--device", "cpu", *more])]


def weights(folder):
    return load_file(folder / "unet/diffusion_pytorch_model.safetensors")


def curve(folder):
    lines = map(json.loads, (folder / ".training/ip2p.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_sd):
    out = tmp_path_factory.mktemp("ip2p") / "whole"
    train_ip2p.main(arguments(out, tiny_sd))
    return out


def test_inflated_unet_ignores_the_photo_until_trained(tiny_sd, tmp_path):
    base, sd = load_sd(tiny_sd), load_sd(tiny_sd)
    ip2p.inflate(sd)
    x, photo, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    text = sd.embed(["Rust style", ""])
    expected = eps(base.unet, x, t, text)
    torch.testing.assert_close(eps(sd.unet, torch.cat([x, 0 * photo], 1), t, text), expected)
    torch.testing.assert_close(eps(sd.unet, torch.cat([x, photo], 1), t, text), expected)
    assert ip2p.edits(sd) and not ip2p.edits(base)
    before = sd.unet.conv_in
    ip2p.inflate(sd)  # once is enough
    assert sd.unet.conv_in is before

    sd.unet.save_pretrained(tmp_path)  # its config says so too
    assert type(sd.unet).from_pretrained(tmp_path).conv_in.weight.shape[1] == 8
    base.unet.conv_in = torch.nn.Conv2d(9, 16, 3, padding=1)  # a mask and a masked image: inpainting
    base.unet.register_to_config(in_channels=9)
    with pytest.raises(UserError, match="9 input channels"):
        ip2p.inflate(base)


def test_dropout_shares():
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    no_text, no_photo = ip2p.dropped(u, 0.05)
    shares = {
        "text alone": no_text & ~no_photo,
        "both": no_text & no_photo,
        "photo alone": ~no_text & no_photo,
        "none": ~no_text & ~no_photo,
    }
    found = {name: flags.float().mean().item() for name, flags in shares.items()}
    expected = {"text alone": 0.05, "both": 0.05, "photo alone": 0.05, "none": 0.85}
    assert found == pytest.approx(expected, abs=0.004)
    edges = torch.tensor([0.0, 0.049, 0.051, 0.099, 0.101, 0.149, 0.151])
    no_text, no_photo = ip2p.dropped(edges, 0.05)
    assert no_text.tolist() == [True, True, True, True, False, False, False]
    assert no_photo.tolist() == [False, False, True, True, True, True, False]


def test_photo_and_painting_belong_together_and_flip_together(tiny_sd, tmp_path, monkeypatch):
    """What the loss is given, against images encoded here; the posterior's draw is replaced by its mode."""
    given = []

    def spy(unet, x, photo, t, text, noise, abar_t, min_snr=None):
        a = abar_t.view(-1, 1, 1, 1)
        given.append(((x - (1 - a).sqrt() * noise) / a.sqrt(), photo, text))
        return (0 * eps(unet, torch.cat([x, photo], 1), t, text)).sum()

    monkeypatch.setattr(train_ip2p, "ip2p_loss", spy)
    monkeypatch.setattr(
        StableDiffusion, "sample_moments", lambda self, moments, generator: moments[:, :4].float()
    )
    train_ip2p.main(arguments(tmp_path / "out", tiny_sd, "steps=3", "batch=16", "dropout=0.0"))
    latents, photos, texts = (torch.cat(parts) for parts in zip(*given))

    sd, data = load_sd(tiny_sd), training.images("mini", 1, 16)
    rows = [i for i, row in enumerate(data.rows) if row[0] != canvas.PHOTO]
    paintings, originals = (
        torch.stack(part) for part in zip(*((data[i]["image"], data.photo(i)) for i in rows))
    )
    prompts = [f"Transform the image to {canvas.spoken(data.rows[i][0])} style." for i in rows]
    modes = [[sd.moments(part)[:, :4] for part in (p, p.flip(-1))] for p in (paintings, originals)]
    said, flips = sd.embed(prompts), set()
    for latent, photo, text in zip(latents, photos, texts):
        straight, mirrored = [(mode - latent).abs().amax((1, 2, 3)) for mode in modes[0]]
        flip = int(mirrored.min() < straight.min())
        i = int((mirrored if flip else straight).argmin())
        assert (modes[0][flip][i] - latent).abs().max() < 0.02  # at the largest t, 1 / sqrt(abar) magnifies
        assert (modes[1][flip][i] - photo).abs().max() < 2e-3  # its photo, mirrored like it, unscaled
        assert (said[i] - text).abs().max() < 1e-5
        flips.add(flip)
    assert flips == {0, 1}


def test_training_moves_the_unet_alone_and_the_photo_matters(trained, tiny_sd):
    before, after = load_sd(tiny_sd), load_sd(trained)
    for part in ("vae", "text_encoder"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert tiny.changed(old, new) == set()
    assert weights(trained)["conv_in.weight"][:, 4:].abs().max() > 0
    assert json.loads((trained / "canvas.json").read_text()) == tiny.CARD
    assert not (trained / ".training/ip2p").exists()


def test_unmodified_pipeline_loads_it_and_draws_the_same(trained):
    """diffusers' own loop: three branches, image latents, guidance, DDIM."""
    sd = load_sd(trained)
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(trained, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    photo = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)[None]
    prompt, seed = "Transform the image to Rust style.", ("Rust", "Cats", 19)
    ours = ip2p.edit(sd, photo, [prompt], [seed], steps=5, s_text=3.0, s_photo=1.7)
    theirs = pipe(
        prompt,
        image=Image.fromarray(pixels),
        num_inference_steps=5,
        guidance_scale=3.0,
        image_guidance_scale=1.7,
        latents=noise_of(seed, (4, 8, 8))[None],
        output_type="np",
    ).images
    assert np.abs(ours / 255.0 - theirs).max() < 0.01
    assert np.abs(theirs - theirs.mean()).max() > 0.02


def test_three_branches_by_hand(trained):
    sd = load_sd(trained)
    x, photo = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    text, null = sd.embed(["Rust style", "Sketch style"]), sd.embed([""])

    def e(photo, text):
        return eps(sd.unet, torch.cat([x, photo], 1), 500, text)

    none, image, full = e(0 * photo, null.expand(2, -1, -1)), e(photo, null.expand(2, -1, -1)), e(photo, text)
    expected = none + 7.5 * (full - image) + 1.5 * (image - none)
    found = ip2p.guided_eps(sd.unet, x, 500, photo, text, null, 7.5, 1.5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_killed_and_resumed(trained, tiny_sd, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(train_ip2p, "ip2p_loss", tiny.interrupt(train_ip2p.ip2p_loss, 3))
    with pytest.raises(SystemExit, match="130"):
        train_ip2p.main(arguments(out, tiny_sd))
    monkeypatch.undo()
    train_ip2p.main(arguments(out, tiny_sd))
    assert tiny.changed(weights(trained), weights(out)) == set()
    assert curve(out) == curve(trained) and list(curve(out)) == [1, 2, 3, 4]


def test_kill_minus_nine(trained, tiny_sd, tmp_path):
    """The process is killed while it trains; the same command ends as the uninterrupted one did."""
    out = tmp_path / "out"
    code = (
        "import os, signal, sys; from diffusion_model_finetuning import train_ip2p as t\n"
        "real, calls = t.ip2p_loss, []\n"
        "def loss(*args):\n calls.append(1)\n if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        " return real(*args)\n"
        "t.ip2p_loss = loss; t.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *arguments(out, tiny_sd)]
    killed = subprocess.run(command, cwd=REPOSITORY, timeout=300)
    assert killed.returncode == -9 and (out / ".training/ip2p/step-2").is_dir()
    train_ip2p.main(arguments(out, tiny_sd))
    losses = curve(trained)
    assert curve(out) == pytest.approx(losses, abs=1e-3) and len(losses) == 4


def test_held_out_photos_on_the_way(tiny_sd, tmp_path):
    out = tmp_path / "out"
    train_ip2p.main(arguments(out, tiny_sd, "validate.every=2"))
    pictures = sorted((out / ".training/ip2p-images").iterdir())
    assert [path.name for path in pictures] == ["step-2.png", "step-4.png"]
    assert Image.open(pictures[0]).size == (32, 16)


def test_moments_are_those_of_text_to_image_training(tiny_sd, tmp_path):
    """Both scripts read the same cache."""
    train_ip2p.main(arguments(tmp_path / "out", tiny_sd, "steps=1"))
    (path,) = (tmp_path / "out/.training").glob("moments-*")
    cached_moments(load_sd(tiny_sd), training.images("mini", 1, 16), tmp_path / "out/.training", True)
    assert [*(tmp_path / "out/.training").glob("moments-*")] == [path]
