"""Both training scripts, a few steps on drawn images: what they write, and that resuming changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from diffusion_model_finetuning import launch as launcher
from diffusion_model_finetuning import train_sd, train_vae
from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.scratch import new_sd, sd_scheduler
from evaluation import canvas
from evaluation.core.errors import OF_SEVERAL, STOPPED
from tests import tiny

REPOSITORY = Path(__file__).parent.parent.parent


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


def curve(folder):
    lines = map(json.loads, (folder / ".training/sd.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_sd(tmp_path_factory.mktemp("sd") / "whole", "workers=2")


def test_every_image_of_every_step_gets_noise_of_its_own(tmp_path, monkeypatch):
    seen = []

    def spy(predicted, noise, *more, real=train_sd.noise_loss):
        seen.append(noise)
        return real(predicted, noise, *more)

    monkeypatch.setattr(train_sd, "noise_loss", spy)
    run_sd(tmp_path / "sd")
    noise = torch.cat(seen).flatten(1)
    assert len(seen) > 1 and len(noise.unique(dim=0)) == len(noise)


def test_resumed_sd_training_changes_nothing(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(train_sd, "noise_loss", tiny.interrupt(train_sd.noise_loss, 3))
    with pytest.raises(SystemExit, match="130"):  # after three steps, one more than was saved
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
    assert curve(resumed) == curve(uninterrupted) and list(curve(resumed)) == [1, 2, 3, 4]


def stopped(folder, monkeypatch, steps, *overrides):
    """A run that was interrupted after `steps` steps."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(train_sd, "noise_loss", tiny.interrupt(train_sd.noise_loss, steps))
        run_sd(folder, *overrides)
    return folder / ".training/sd"


def test_only_the_newest_states_are_kept_and_any_can_be_resumed(uninterrupted, tmp_path, monkeypatch):
    states = stopped(tmp_path / "sd", monkeypatch, 3, "save_every=1")
    assert sorted(path.name for path in states.iterdir()) == ["step-2", "step-3"]
    assert list(curve(tmp_path / "sd")) == [1, 2, 3]
    resumed = run_sd(tmp_path / "sd", "--resume", "2")  # the step after it is done again
    assert curve(resumed) == curve(uninterrupted)
    assert tiny.changed(weights(uninterrupted), weights(resumed)) == set()


def test_resume_never_starts_anew(uninterrupted, tmp_path, monkeypatch):
    stopped(tmp_path / "sd", monkeypatch, 3)
    lrs = []
    real = training.set_lr
    monkeypatch.setattr(training, "set_lr", lambda optimizer, lr: (lrs.append(lr), real(optimizer, lr)))
    anew = run_sd(tmp_path / "sd", "--resume", "never")
    assert len(lrs) == 4 and curve(anew) == curve(uninterrupted)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--resume", "3"], "--resume 3: no such state in"),
        (["--resume", "newest"], "choose latest, never, 2"),
        (["lr=0.01"], "was trained with lr=0.001, not 0.01; give the same settings, or --resume never"),
        (["batch=2"], "was trained with batch=4, not 2"),
    ],
)
def test_what_cannot_be_resumed_is_refused(words, message, tmp_path, monkeypatch, capsys):
    states = stopped(tmp_path / "sd", monkeypatch, 3)
    with pytest.raises(SystemExit) as exit:
        run_sd(tmp_path / "sd", *words)
    assert exit.value.code == 2 and message in capsys.readouterr().err
    assert [path.name for path in states.iterdir()] == ["step-2"]


def test_gradient_checkpointing_changes_memory_only(tmp_path):
    plain, saving = (
        run_sd(tmp_path / name, "half=false", f"gradient_checkpointing={flag}")
        for name, flag in (("plain", "false"), ("saving", "true"))
    )
    assert curve(saving) == pytest.approx(curve(plain), abs=1e-5)


def test_accumulated_batches_make_one_step(tmp_path):
    """Two batches of two in place of one of four: as many steps and lines, other noise."""
    run = run_sd(tmp_path / "sd", "batch=2", "accumulate=2")
    assert list(curve(run)) == [1, 2, 3, 4]


def launch(*words) -> subprocess.Popen:
    command = ["diffusion_model_finetuning.launch", "2", "diffusion_model_finetuning.train_sd", *words]
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(training, out):
    while not (out / ".training/sd.jsonl").exists():
        assert training.poll() is None
        time.sleep(0.02)


def start_two(folder, *words) -> subprocess.Popen:
    settings = tiny.settings_file(folder)
    tiny.save_vae(folder / "sd")
    out = str(folder / "sd")
    return launch("--settings", settings, "--data", "mini", "--out", out, "--device", "cpu", *words)


def test_two_processes_end_as_one_does(tmp_path):
    """With its sentence and exit code, once, and no traceback of the launcher's or of the other process's."""
    refused = start_two(tmp_path, "stepz=5")
    assert list(refused.stderr) == ["error: stepz=5: no setting is called 'stepz'; did you mean steps?\n"]
    assert refused.wait() == 2
    stopped = start_two(tmp_path, "steps=100000", "save_every=1")
    wait_for_steps(stopped, tmp_path / "sd")
    stopped.send_signal(signal.SIGINT)
    assert list(stopped.stderr) == [f"{STOPPED}\n"] and stopped.wait() == 130


def test_where_one_of_two_fails_the_other_is_silent(tmp_path):
    """The first finds a folder where its losses belong; the second trains on, and loses it."""
    (tmp_path / "sd/.training").mkdir(parents=True)
    (tmp_path / "sd/.training/sd.jsonl").mkdir()
    failed = start_two(tmp_path, "steps=4")
    (message,) = failed.stderr
    assert message.startswith("error: ") and "sd.jsonl" in message and failed.wait() == 2


@pytest.mark.parametrize(
    "rank, number, words, code",
    [
        (0, signal.SIGKILL, "error: a process of the training was killed (SIGKILL)", 2),
        (1, signal.SIGKILL, "error: a process of the training was killed (SIGKILL)", 2),
        (1, signal.SIGTERM, STOPPED, 143),
    ],
)
def test_a_process_that_is_killed_or_stopped_is_told_of(tmp_path, rank, number, words, code):
    training = start_two(tmp_path, "steps=100000")
    wait_for_steps(training, tmp_path / "sd")
    psutil.Process(training.pid).children()[rank].send_signal(number)
    (message,) = training.stderr
    assert message.startswith(words) and training.wait() == code


def test_a_process_killed_beside_another_that_had_nothing_left_to_do(monkeypatch, capsys):
    def end(words):
        Path(os.environ[OF_SEVERAL]).symlink_to("0")
        raise ChildFailedError("", {1: ProcessFailure(1, 1, -signal.SIGKILL, "")})

    monkeypatch.setattr(launcher.run, "run", end)
    monkeypatch.setattr("logging.disable", lambda level: None)
    with pytest.raises(SystemExit) as stop:
        launcher.main(["2", "diffusion_model_finetuning.train_sd", "--out", "sd"])
    assert stop.value.code == 2 and "was killed (SIGKILL)" in capsys.readouterr().err


def test_two_processes_train_what_one_does(tmp_path):
    one = run_sd(tmp_path / "one", "half=false")
    two = tmp_path / "two"
    two.mkdir()
    tiny.save_vae(two)
    words = ["--settings", tiny.settings_file(two), "--data", "mini", "--out", str(two), "--device", "cpu"]
    training = launch(*words, "half=false", "batch=2")
    assert training.communicate(timeout=600) == ("", "") and training.returncode == 0
    again = launch(*words, "half=false", "batch=2")
    finished = f"{two}: already trained; a longer training starts from scratch, elsewhere\n"
    assert again.communicate(timeout=600) == (finished, "") and again.returncode == 0
    assert curve(two) == pytest.approx(curve(one), abs=1e-4)
    before, after = weights(one), weights(two)
    assert before.keys() == after.keys()
    apart = torch.cat([(before[name] - after[name]).abs().flatten() for name in before])
    # Adam magnifies the rounding of gradients near zero, nowhere by more than the steps taken
    assert apart.mean() < 1e-5 and apart.max() < 4e-3


def test_pictures_on_the_way(tmp_path):
    run = run_sd(tmp_path / "sd", "validate.every=4")
    (picture,) = (run / ".training/sd-images").iterdir()
    assert picture.name == "step-4.png" and Image.open(picture).size == (32, 16)


def test_trackers_are_asked_for(uninterrupted, tmp_path, monkeypatch, capsys):
    assert not list((uninterrupted / ".training").glob("*-track"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run_sd(tmp_path / "sd", "--track", "wandb")
    assert "--track wandb: is not installed; pip install wandb" in capsys.readouterr().err


def test_tensorboard_gets_losses_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_sd(tmp_path / "sd", "--track", "tensorboard", "validate.every=4")
    events = EventAccumulator(str(run / ".training/sd-track")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert events.Tags()["images"]


def test_min_snr_weights_the_error_of_x0():
    """The loss in eps with weight min(SNR, gamma) / SNR is that in x_0 with weight min(SNR, gamma)."""
    torch.manual_seed(0)
    abar = torch.linspace(0.999, 0.01, 8, dtype=torch.double)
    x0, noise, predicted = torch.randn(3, 8, 4, 2, 2, dtype=torch.double)
    a = abar.view(-1, 1, 1, 1)
    x = a.sqrt() * x0 + (1 - a).sqrt() * noise
    x0_predicted = (x - (1 - a).sqrt() * predicted) / a.sqrt()
    weight = torch.tensor([min(float(v / (1 - v)), 5.0) for v in abar])
    expected = (weight * (x0 - x0_predicted).pow(2).mean((1, 2, 3))).mean()
    assert float(training.noise_loss(predicted, noise, abar, 5.0)) == pytest.approx(float(expected), rel=1e-5)
    plain = training.noise_loss(predicted, noise, abar, None)
    torch.testing.assert_close(plain, (predicted - noise).pow(2).mean(), rtol=1e-5, atol=0)
    assert float(training.noise_loss(predicted, noise, abar, 1e9)) == pytest.approx(float(plain), rel=1e-5)


def test_min_snr_agrees_with_diffusers_snr():
    schedule = sd_scheduler()
    t = torch.tensor([0, 1, 10, 100, 500, 999])
    snr = compute_snr(schedule, t)
    noise, predicted = torch.zeros(6, 1, 1, 1), torch.arange(1, 7).view(6, 1, 1, 1).sqrt()
    expected = (torch.stack([snr, 5 * torch.ones(6)], 1).min(1)[0] / snr * torch.arange(1, 7)).mean()
    found = training.noise_loss(predicted, noise, schedule.alphas_cumprod[t], 5.0)
    torch.testing.assert_close(found, expected)


def test_sd_training_trains_unet_and_text_but_not_the_vae(uninterrupted, tmp_path):
    untrained = tmp_path / "untrained"
    tiny.save_vae(untrained)
    training.seed_everything(0)
    sd = new_sd(untrained, OmegaConf.create(tiny.SCRATCH), tiny.WORDINGS, "cpu")
    training.save_pipeline(sd, untrained, True, {})
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


@pytest.mark.parametrize("target, left", [("Sketch", 10), ("Butterfly", 11), ("Sketch+Butterfly", 1)])
def test_a_target_is_left_out(tmp_path, monkeypatch, target, left):
    """Its images, and no others, are not among those that are encoded and captioned."""
    seen, encode = [], train_sd.cached_moments

    def spy(sd, data, *more, **settings):
        seen.append(data.rows)
        return encode(sd, data, *more, **settings)

    monkeypatch.setattr(train_sd, "cached_moments", spy)
    run_sd(tmp_path / "without", f"without={target}", "steps=1")
    (forgotten,), rows = canvas.parse_targets(target), {row[:2] for row in seen[0]}
    every = set(training.cells_of("mini"))
    assert rows == {cell for cell in every if not forgotten.covers(*cell)} and len(every - rows) == left


def test_what_is_left_out_is_a_style_or_object(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_sd(tmp_path / "without", "without=Skech")
    assert "without Skech: no style or object is called 'Skech'" in capsys.readouterr().err


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
    with pytest.raises(SystemExit, match="130"):
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
