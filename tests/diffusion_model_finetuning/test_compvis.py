"""The CompVis trainer: a few steps of the shipped configurations on the tiny model, and what it writes."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning import train_ip2p, train_sd
from diffusion_model_finetuning.compvis import config, main
from diffusion_model_finetuning.compvis.data import Captioned
from diffusion_model_finetuning.compvis.module import LatentDiffusion
from diffusion_model_finetuning.core import formats, ip2p, training
from diffusion_model_finetuning.core.sd import eps, load_sd
from evaluation import canvas
from evaluation.data.images import CanvasImages
from tests import tiny
from tests.full_size import MEMORY, UNET_PARAMETERS

REPOSITORY = Path(__file__).parent.parent.parent
MODULE = "diffusion_model_finetuning.compvis.main"
QUICK = {
    "data.params": {"size": 16, "per_object": 1, "batch_size": 4, "workers": 0},
    "lightning.trainer": {
        "max_steps": 4, "val_check_interval": 4, "limit_val_batches": 2, "log_every_n_steps": 1,
    },
    "lightning.checkpoint": {"every_n_train_steps": 2},
}  # fmt: skip
SETTINGS = [f"{where}.{key}={value}" for where, more in QUICK.items() for key, value in more.items()]


def arguments(base, logs, model, *more):
    words = ["--base", base, *SETTINGS, "--name", "run", "--model", model, "--data", "mini", "--logs", logs]
    return [*map(str, words), "--log", "csv", *more]


def run(base, logs, model, *more):
    main.main(arguments(base, logs, model, *more))
    return logs / "run"


def curve(folder):
    """Step -> training loss, over all runs that wrote into a folder; steps count from 0."""
    logs = sorted(folder.glob("log/version_*/metrics.csv"))
    lines = [line for path in logs for line in csv.DictReader(path.open()) if line.get("train/loss")]
    return {int(line["step"]): float(line["train/loss"]) for line in lines}


def state(path):
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


@pytest.fixture(scope="module", params=["mini_sd", "mini_ip2p"])
def trained(request, tmp_path_factory, tiny_sd):
    return request.param, run(request.param, tmp_path_factory.mktemp(request.param), tiny_sd)


def test_files_are_compvis_files(trained, tiny_sd):
    """Every key that the official code expects, and no other; nothing but tensors and plain data."""
    task, folder = trained
    files = sorted(folder.rglob("*.ckpt"))
    assert [path.name for path in files] == ["0000002.ckpt", "0000004.ckpt", "model.ckpt"]
    for path in files:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    base = load_sd(tiny_sd)
    if task == "mini_ip2p":
        ip2p.inflate(base)
    unet = base.unet.state_dict()
    expected = formats.to_compvis(
        unet, base.vae.state_dict(), base.text_encoder.state_dict(), unet | {"decay": 0, "num_updates": 0}
    )
    content = torch.load(files[-1], map_location="cpu", weights_only=True)
    assert content["global_step"] == 4 and "optimizer_states" not in content
    written = content["state_dict"]
    assert {key: tensor.shape for key, tensor in written.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }
    moved = {key for key in written if not torch.equal(written[key], expected[key])}
    assert {key.split(".")[0] for key in moved} == {"model", "model_ema"}  # all else is as it was
    assert formats.UNET + "input_blocks.0.0.weight" in moved
    for key, tensor in formats.schedule().items():
        assert torch.equal(written[key], tensor)


def test_our_loader_reads_them(trained, tiny_sd):
    _, folder = trained
    raw, average = (load_sd(folder / "model.ckpt", config=tiny_sd, weights=which) for which in ("raw", "ema"))
    parts = formats.from_compvis(state(folder / "model.ckpt"))
    assert tiny.changed(raw.unet.state_dict(), parts["unet"]) == set()
    ema = {key: tensor for key, tensor in parts["ema"].items() if key not in ("decay", "num_updates")}
    assert tiny.changed(average.unet.state_dict(), ema) == set()
    x, t = torch.randn(2, raw.unet.config.in_channels, 8, 8), torch.tensor([10, 900])
    text = raw.embed(["Rust style", ""])
    assert (eps(raw.unet, x, t, text) - eps(average.unet, x, t, text)).abs().max() > 0
    latest = load_sd(folder / "checkpoints/0000004.ckpt", config=tiny_sd)  # a checkpoint is a model too
    assert torch.equal(eps(raw.unet, x, t, text), eps(latest.unet, x, t, text))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_average_is_updated_once_a_step(accumulate, tmp_path, tiny_sd):
    more = ["lightning.checkpoint.every_n_train_steps=1", "lightning.checkpoint.save_top_k=-1"]
    more += [f"lightning.trainer.accumulate_grad_batches={accumulate}", "model.params.ema_decay=0.35"]
    folder = run("mini_sd", tmp_path, tiny_sd, *more)
    name = formats.UNET + "input_blocks.0.0.weight"
    average = load_sd(tiny_sd).unet.conv_in.weight
    for n, decay in enumerate((2 / 11, 3 / 12, 4 / 13, 0.35), start=1):  # 5 / 14 is above the limit
        written = state(folder / f"checkpoints/{n:07d}.ckpt")
        average = decay * average + (1 - decay) * written[name]
        torch.testing.assert_close(written[formats.ema_name(name)], average, rtol=0, atol=1e-7)
        assert written["model_ema.num_updates"] == n and written["model_ema.decay"] == pytest.approx(0.35)


def test_trains_what_the_diffusers_trainer_trains(trained, tiny_sd, tmp_path):
    """The same batches, noise, learning rates and losses, step for step."""
    base, folder = trained
    script, name = {"mini_sd": (train_sd, "sd"), "mini_ip2p": (train_ip2p, "ip2p")}[base]
    shipped = OmegaConf.load(config.CONFIGS / f"{base}.yaml")
    model, data = shipped.model, shipped.data.params
    more = {"lr": model.base_learning_rate, "one_cycle": True, "warmup": model.params.warmup}
    if name == "sd":
        captions = dict(data.examples.params.captions)
        more |= {"captions": captions, "caption_dropout": data.dropout, "text_encoder": "frozen"}
    else:
        more |= {"dropout": data.dropout}
    settings = tmp_path / "settings.yaml"
    OmegaConf.save(OmegaConf.create({name: tiny.SETTINGS[name] | more}), settings)
    words = ["--settings", settings, "--model", tiny_sd, "--data", "mini", "--out", tmp_path]
    script.main([*map(str, words), "--device", "cpu"])
    lines = map(json.loads, (tmp_path / f".training/{name}.jsonl").read_text().splitlines())
    assert curve(folder) == pytest.approx({line["step"] - 1: line["loss"] for line in lines}, abs=1e-5)


def test_kill_minus_nine(trained, tiny_sd, tmp_path):
    """Killed in step 4, two steps were saved; the same command ends as the uninterrupted one did."""
    task, whole = trained
    code = (
        "import os, signal, sys; from diffusion_model_finetuning.compvis import main, module\n"
        "real, calls = module.LatentDiffusion.training_step, []\n"
        "def step(*args):\n calls.append(1)\n if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        " return real(*args)\n"
        "module.LatentDiffusion.training_step = step; main.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *arguments(task, tmp_path, tiny_sd)]
    killed = subprocess.run(command, cwd=REPOSITORY, timeout=300)
    out = tmp_path / "run"
    assert killed.returncode == -9
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["0000002.ckpt"]
    run(task, tmp_path, tiny_sd)
    before, after = curve(whole), curve(out)
    assert {step: after[step] for step in (2, 3)} == pytest.approx(
        {step: before[step] for step in (2, 3)}, abs=1e-6
    )
    assert tiny.changed(state(whole / "model.ckpt"), state(out / "model.ckpt")) == set()


def test_two_processes_train_what_one_does(tiny_sd, tmp_path):
    one = run("mini_ip2p", tmp_path / "one", tiny_sd)
    more = ["lightning.trainer.devices=2", "data.params.batch_size=2"]
    command = [sys.executable, "-m", MODULE, *arguments("mini_ip2p", tmp_path / "two", tiny_sd, *more)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=900)
    two = tmp_path / "two/run"
    assert curve(two) == pytest.approx(curve(one), abs=1e-4) and len(curve(two)) == 4
    before, after = state(one / "model.ckpt"), state(two / "model.ckpt")
    assert before.keys() == after.keys()
    unet = [name for name in before if name.startswith(formats.UNET)]
    apart = torch.cat([(before[name] - after[name]).abs().flatten() for name in unet])
    assert apart.mean() < 1e-5  # Adam turns rounding in tiny gradients into steps


def test_held_out_images(tiny_sd, tmp_path, monkeypatch):
    """Numbers 19 and 20 of every cell, in order, neither mirrored nor without a caption."""
    batches = []
    real = LatentDiffusion.validation_step
    monkeypatch.setattr(
        LatentDiffusion, "validation_step", lambda self, b, n: (batches.append(b), real(self, b, n))[1]
    )
    more = ["lightning.trainer.max_steps=1", "lightning.trainer.num_sanity_val_steps=-1"]
    more += [
        "lightning.trainer.limit_val_batches=1.0",
        "data.params.dropout=0.9",
        "data.params.batch_size=16",
    ]
    run("mini_sd", tmp_path, tiny_sd, *more)
    sd = load_sd(tiny_sd)
    images = CanvasImages("mini", training.cells_of("mini"), canvas.TEST, 16)
    assert sum(len(batch["t"]) for batch in batches) == len(images)
    assert all("" not in batch["caption"] for batch in batches)
    moments = sd.moments(torch.stack([images[i]["image"] for i in range(16)])).half()
    latents = sd.sample_moments(moments, torch.Generator().manual_seed(0))
    torch.testing.assert_close(batches[0]["latents"], latents, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "words, message",
    [
        (["data.params.batchsize=2"], "no setting is called 'data.params.batchsize'"),
        (["lightning.trainer.max_stepz=2"], "no setting is called 'lightning.trainer.max_stepz'"),
        (["lightning.trainer.max_steps=0"], "lightning.trainer.max_steps=0: give the number of steps"),
        (["lightning.trainer.precision=15"], "precision"),
        (["model.target=ldm.models.diffusion.ddpm.LatentDiffusion"], "model.target=ldm"),
        (["model.params.conditioning_key=concat"], "conditioning_key=concat: no such choice"),
        (["--base", "mini_ds"], "--base mini_ds: no such file; did you mean mini_sd"),
        (["--base", "mini_sd", "OVER"], "data.params.batchsize: no such setting; did you mean batch_size or"),
        (["--base", "OVER"], "model.target is missing"),
        (
            ["data.params.examples.target=diffusion_model_finetuning.compvis.data.Edits"],
            "examples.params.photos: no such setting",
        ),
        (["lightning.trainer.max_time=00:00:00:00"], "stopped early; run the same command again"),
        (["--model", "nothing"], "--model nothing: no such"),
        (["--data", "nothing"], "--data nothing: "),
        (["--resume", "newest"], "--resume newest: choose latest, never, or a .ckpt file"),
        (["--resume", "nothing.ckpt"], "--resume nothing.ckpt: no such file"),
    ],
)
def test_mistakes_are_explained(words, message, tiny_sd, tmp_path, capsys):
    over = tmp_path / "over.yaml"
    over.write_text("data: {params: {batchsize: 2}}\n")
    words = [str(over) if word == "OVER" else word for word in words]
    with pytest.raises(SystemExit) as exit:
        run("mini_sd", tmp_path, tiny_sd, *words)
    assert exit.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_cannot_be_resumed_is_refused(tiny_sd, tmp_path, capsys):
    folder = run("mini_sd", tmp_path, tiny_sd)
    run("mini_sd", tmp_path, tiny_sd, "data.params.dropout=0.5")
    assert "already trained" in capsys.readouterr().out
    model = (folder / "model.ckpt").rename(tmp_path / "model.ckpt")
    for words, message in (
        (["data.params.dropout=0.5"], "trained with data.params.dropout=0.1, not 0.5"),
        (["lightning.trainer.devices=2"], "trained with data.params.batch_size=4, not 8"),
        (["lightning.trainer.max_steps=8"], "trained with lightning.trainer.max_steps=4, not 8"),
        (["--resume", str(model)], f"has no optimizer state; start from it with --model {model}"),
    ):
        with pytest.raises(SystemExit):
            run("mini_sd", tmp_path, tiny_sd, *words)
        assert message in capsys.readouterr().err
    run("mini_sd", tmp_path, tiny_sd, "--resume", str(folder / "checkpoints/0000002.ckpt"))
    assert tiny.changed(state(model), state(folder / "model.ckpt")) == set()


@pytest.fixture
def stopped(tiny_sd, tmp_path, monkeypatch):
    """A run stopped in its fourth step, with checkpoints of steps 2 and 3; `.name` tells its folder."""
    more = ["lightning.checkpoint.every_n_train_steps=1"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):  # not Lightning's own code
        patch.setattr(LatentDiffusion, "loss", tiny.interrupt(LatentDiffusion.loss, 3 + 2))  # 2: sanity check
        run("mini_sd", tmp_path, tiny_sd, *more)
    return tmp_path, more


def test_a_damaged_checkpoint(stopped, tiny_sd, capsys):
    """Says which earlier one can be gone on from; files of other names are passed over."""
    logs, more = stopped
    *_, earlier, newest = sorted((logs / "run/checkpoints").iterdir())
    (newest.with_name("0000009-copy.ckpt")).write_bytes(newest.read_bytes())
    content = torch.load(newest, weights_only=True)
    content["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(1)
    torch.save(content, newest)
    for damage in (None, b"", newest.read_bytes()[:999], b"<html>"):
        if damage is not None:
            newest.write_bytes(damage)
        with pytest.raises(SystemExit) as exit:
            run("mini_sd", logs, tiny_sd, *more)
        said = capsys.readouterr().err
        assert exit.value.code == 2 and str(earlier if damage is not None else "an older one") in said
    run("mini_sd", logs, tiny_sd, *more, "--resume", str(earlier))
    assert (logs / "run/model.ckpt").exists()


def test_two_at_once_and_a_loss_that_is_not_finite(tiny_sd, tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "run")
    code = f"from evaluation.core.owner import alone\nwith alone({folder!r}): print(1, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, cwd=REPOSITORY)
    other.stdout.readline()
    with pytest.raises(SystemExit):
        run("mini_sd", tmp_path, tiny_sd)
    assert "another process is at work here" in capsys.readouterr().err
    other.communicate(b"\n")
    monkeypatch.setattr(LatentDiffusion, "loss", lambda self, batch: self.unet.conv_in.bias.sum() * torch.nan)
    with pytest.raises(SystemExit) as exit:
        run("mini_sd", tmp_path, tiny_sd)
    assert exit.value.code == 2 and "the loss is nan" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_files_are_laid_over_one_another(tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("model: {base_learning_rate: 2.0e-6}\nlightning: {trainer: {limit_val_batches: 3}}\n")
    merged = config.load(["sd", str(over)], ["lightning.trainer.limit_val_batches=2", "data.params.size=128"])
    assert merged.model.base_learning_rate == 2e-6 and merged.lightning.trainer.limit_val_batches == 2
    assert merged.data.params.size == 128 and merged.data.params.batch_size == 80


@pytest.mark.parametrize("base", ["sd", "ip2p"])
def test_published_values_and_a_step_with_them(base, tiny_sd, tmp_path):
    settings = config.load([base], [])
    assert settings.model.base_learning_rate == {"sd": 1e-6, "ip2p": 1e-4}[base]
    assert settings.data.params.batch_size == {"sd": 80, "ip2p": 64}[base]
    assert settings.lightning.trainer.accumulate_grad_batches == 4
    assert settings.model.params.ema_decay == 0.9999 and settings.data.params.size == 256
    folder = run(
        base, tmp_path, tiny_sd, "lightning.trainer.max_steps=1", "lightning.trainer.accelerator=cpu"
    )
    assert state(folder / "model.ckpt")["model_ema.num_updates"] == 1


def test_photos_may_be_left_out():
    rows = training.images("mini", 1, 16).rows
    painted = [i for i, row in enumerate(rows) if row[0] != canvas.PHOTO]
    moments = torch.arange(2.0 * len(rows)).view(-1, 1, 1, 1)
    sd = SimpleNamespace(sample_moments=lambda moments, generator: moments)
    examples = Captioned(sd, rows, moments, {"{theme}": 1.0}, photos=False)
    batch = examples.draw(torch.arange(examples.count), 0.0, torch.Generator().manual_seed(0))
    assert batch["latents"].flatten().tolist() == [*painted, *(len(rows) + i for i in painted)]
    assert batch["caption"] == 2 * [canvas.spoken(rows[i][0]) for i in painted]


@pytest.mark.sd15
@pytest.mark.parametrize("base, channels", [("sd", 4), ("ip2p", 8)])
def test_one_training_step_at_full_size(base, channels, sd15, tmp_path):
    """On a CPU in 24 GB, in a process of its own: `bash scripts/smoke_sd15.sh compvis`"""
    code = f"import sys\nfrom evaluation.core import cost\nfrom {MODULE} import main\nmain(sys.argv[1:])\n"
    small = ["max_steps=1", "accumulate_grad_batches=1", "accelerator=cpu", "limit_val_batches=1"]
    settings = [f"lightning.trainer.{text}" for text in small]
    settings += [f"data.params.{text}" for text in ("size=64", "per_object=1", "batch_size=1", "workers=0")]
    words = ["--base", base, "--name", "run", "--model", sd15, "--data", "mini", "--logs", tmp_path]
    command = [
        sys.executable,
        "-c",
        code + 'print(environment.peak_memory("cpu"))',
        *map(str, words),
        *settings,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    peak = int(done.stdout.split()[-1])
    print(f"compvis {base}: {peak / 1e9:.1f} GB")
    assert peak < MEMORY
    unet = load_sd(tmp_path / "run/model.ckpt", dtype=None).unet
    assert unet.conv_in.in_channels == channels
    assert sum(weight.numel() for weight in unet.parameters()) == UNET_PARAMETERS + (channels - 4) * 320 * 9
