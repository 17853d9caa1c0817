"""What a stopped, killed, damaged, doubled or longer training does with its saved states and its model."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning import train_sd, train_vae
from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.core.sd import load_sd
from diffusion_model_finetuning.scratch import new_sd
from evaluation.core.files import append_json
from evaluation.core.owner import alone
from tests import tiny
from tests.diffusion_model_finetuning.test_train import REPOSITORY, curve, run_sd, stopped, weights

CONSTANT = ("one_cycle=false", "steps=4")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_sd(tmp_path_factory.mktemp("whole") / "sd", *CONSTANT)


@pytest.fixture(scope="module")
def stopped_at_three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "sd"
    with pytest.MonkeyPatch.context() as patch:
        stopped(folder, patch, 3, "save_every=1", *CONSTANT)
    return folder


@pytest.fixture
def folder(stopped_at_three, tmp_path):
    """Of a training that was stopped with states of steps 2 and 3."""
    return shutil.copytree(stopped_at_three, tmp_path / "sd")


def refusal(capsys, folder, *words) -> str:
    with pytest.raises(SystemExit) as exit:
        run_sd(folder, *words)
    assert exit.value.code == 2 and not (folder / "model_index.json").exists()
    return capsys.readouterr().err


def same_model(one, other) -> bool:
    return tiny.changed(weights(one), weights(other)) == set()


def test_folders_of_other_names_are_left_alone(folder, uninterrupted):
    states = folder / ".training/sd"
    for name in ("step-3-backup", "step-", "step-04", "step-99x", "notes"):
        shutil.copytree(states / "step-3", states / name)
    (states / "step-9").write_text("no folder")
    run_sd(folder, *CONSTANT)
    assert same_model(folder, uninterrupted)
    assert len([*states.iterdir()]) == 6


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def other_shape(path):
    """The first parameter's part of an optimizer or average."""
    content = torch.load(path, weights_only=True)
    if "state" in content:
        content["state"][0]["exp_avg"] = content["state"][0]["exp_avg"][:1]
    else:
        content["shadow_params"][0] = content["shadow_params"][0][:1]
    torch.save(content, path)


def not_finite(path):
    content = torch.load(path, weights_only=True)
    tensor = content["state"][0]["exp_avg"] if "state" in content else content["shadow_params"][0]
    tensor.fill_(torch.nan)
    torch.save(content, path)


def nothing_in_it(path):
    content = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in content.items() if key not in ("state", "shadow_params")}, path)


@pytest.mark.parametrize(
    "file, damage",
    [(file, damage) for file in ("model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl")
     for damage in (cut, empty, os.remove, other_shape, not_finite, nothing_in_it)
     if file != "model.safetensors" or damage in (cut, empty, os.remove)],
)  # fmt: skip
def test_a_damaged_state(folder, file, damage, capsys):
    """Says which earlier one can be gone on from; that one is not touched."""
    damage(folder / ".training/sd/step-3" / file)
    said = refusal(capsys, folder, *CONSTANT)
    assert "step-3" in said and "--resume 2" in said and "Traceback" not in said
    shutil.rmtree(folder / ".training/sd/step-2")
    assert "--resume never" in refusal(capsys, folder, *CONSTANT)


def test_the_earlier_state_ends_in_the_same_model(folder, uninterrupted):
    empty(folder / ".training/sd/step-3/optimizer.bin")
    run_sd(folder, "--resume", "2", *CONSTANT)
    assert same_model(folder, uninterrupted)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("file", ["optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"])
def test_a_state_runs_nothing(folder, file, monkeypatch, tmp_path, capsys):
    settings = tiny.settings_file(folder)
    monkeypatch.chdir(tmp_path)
    (folder / ".training/sd/step-3" / file).write_bytes(pickle.dumps(Malicious()))
    words = ["--settings", settings, "--data", "mini", "--out", str(folder), "--device", "cpu", *CONSTANT]
    try:
        train_sd.main(words)
    except SystemExit as end:
        assert end.code == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("line", [b"{", b'{"step": 3, "lo', b"null\n", b'{"step": "x"}\n', b"\xff\xfe\n"])
def test_a_log_that_was_cut(folder, line, uninterrupted):
    with open(folder / ".training/sd.jsonl", "ab") as log:
        log.write(line)
    run_sd(folder, *CONSTANT)
    assert same_model(folder, uninterrupted) and curve(folder) == curve(uninterrupted)


def test_more_steps_of_a_constant_rate(folder, tmp_path, capsys):
    longer = run_sd(tmp_path / "longer", "one_cycle=false", "steps=6")
    assert "is at step 3" in refusal(capsys, folder, "one_cycle=false", "steps=2")
    run_sd(folder, "one_cycle=false", "steps=6")
    assert same_model(folder, longer) and curve(folder) == curve(longer)


def test_more_steps_of_a_cycle(tmp_path, monkeypatch, capsys):
    stopped(tmp_path / "sd", monkeypatch, 3)
    assert "was trained with steps=4, not 6" in refusal(capsys, tmp_path / "sd", "steps=6")


def test_a_finished_training_is_lengthened_from_scratch_only(uninterrupted, capsys):
    for words, code, message in (
        (CONSTANT, None, "already trained"),
        (("one_cycle=false", "steps=9"), 2, "from scratch"),
    ):
        try:
            run_sd(uninterrupted, *words)
        except SystemExit as end:
            assert end.code == code
        said = capsys.readouterr()
        assert message in said.out + said.err


@pytest.mark.parametrize("number", range(1, 20, 3))
def test_stopped_while_the_model_is_written(number, folder, uninterrupted, monkeypatch):
    """Before the n-th file takes its place: the model is not there, and the same command completes it."""
    replace, calls = os.replace, []

    def stop(draft, path):
        if "model~" in str(draft):
            calls.append(path)
            if len(calls) == number:
                raise KeyboardInterrupt
        replace(draft, path)

    with monkeypatch.context() as patch:
        patch.setattr(training.os, "replace", stop)
        try:
            run_sd(folder, *CONSTANT)
            assert len(calls) < number
        except SystemExit:
            assert not (folder / "model_index.json").exists()
    run_sd(folder, *CONSTANT)
    assert same_model(folder, uninterrupted)
    for name in ("canvas.json", "model_index.json", "text_encoder/config.json", "unet/config.json"):
        assert (folder / name).read_text() == (uninterrupted / name).read_text()


def test_the_vocabulary_outlives_the_process(tmp_path):
    """Learned anew, words would have other numbers than those trained on."""
    tiny.save_vae(tmp_path)
    words = (str(tmp_path), OmegaConf.create(tiny.SCRATCH), tiny.WORDINGS, "cpu")
    vocabularies = [new_sd(*words).tokenizer.get_vocab() for _ in range(3)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_words_of_a_model_to_compare_with_keep_their_numbers(tiny_sd, tmp_path):
    """The tokenizer in the folder is taken, one of other words, too."""
    tiny.save_vae(tmp_path)
    shutil.copytree(tiny_sd / "tokenizer", tmp_path / "tokenizer")
    sd = new_sd(str(tmp_path), OmegaConf.create(tiny.SCRATCH), {"{theme} {object}!": 1.0}, "cpu")
    assert sd.tokenizer.get_vocab() == load_sd(tiny_sd).tokenizer.get_vocab()


def test_a_finished_training_leaves_no_states(uninterrupted, stopped_at_three, tmp_path):
    """Nor does one that was killed between its model and the removal of the states."""
    folder = shutil.copytree(uninterrupted, tmp_path / "sd")
    shutil.copytree(stopped_at_three / ".training/sd", folder / ".training/sd")
    run_sd(folder, *CONSTANT)
    assert not (folder / ".training/sd").exists() and same_model(folder, uninterrupted)


def test_two_trainings_in_one_folder(folder, capsys):
    code = (
        f"from evaluation.core.owner import alone\nwith alone({str(folder)!r}): print(1, flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, cwd=REPOSITORY)
    other.stdout.readline()
    assert "another process is at work here" in refusal(capsys, folder, *CONSTANT)
    other.communicate(b"\n")
    with alone(folder):
        pass


def test_a_loss_that_is_not_finite(tmp_path, monkeypatch, capsys):
    real, calls = train_sd.noise_loss, []

    def loss(*words):
        calls.append(words)
        return real(*words) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(train_sd, "noise_loss", loss)
    assert "the loss is nan at step 2" in refusal(capsys, tmp_path / "sd", *CONSTANT)
    assert [*(tmp_path / "sd/.training").glob("sd/step-*")] == [] and list(curve(tmp_path / "sd")) == [1]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch, capsys):
    """Though every loss that was looked at is finite."""
    real = train_sd.noise_loss
    monkeypatch.setattr(train_sd, "noise_loss", lambda x, *more: real(x, *more) + (0 * x).sum().sqrt())
    assert "holds" in refusal(capsys, tmp_path / "sd", "one_cycle=false", "steps=1", "save_every=1")
    assert "holds" in refusal(capsys, tmp_path / "sd", "one_cycle=false", "steps=1", "save_every=9")


def run_vae(folder, *words):
    names = [
        "--settings",
        tiny.settings_file(folder.parent),
        "--data",
        "mini",
        "--out",
        str(folder),
        "--device",
        "cpu",
    ]
    train_vae.main([*names, *words])


def test_the_autoencoder_s_state(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(train_vae, "vae_loss", tiny.interrupt(train_vae.vae_loss, 3))
        run_vae(tmp_path / "out")
    state = tmp_path / "out/.training/vae.pt"
    content = state.read_bytes()
    for damage, words, message in (
        (None, ["lr=0.1"], "of other settings"),
        (content[:99], [], "vae.pt"),
        (b"", [], "vae.pt"),
    ):
        state.write_bytes(content if damage is None else damage)
        with pytest.raises(SystemExit) as exit:
            run_vae(tmp_path / "out", *words)
        assert exit.value.code == 2 and message in capsys.readouterr().err
    state.write_bytes(content)
    append_json(state.with_suffix(".jsonl"), {"step": 3, "loss": 0.0})
    run_vae(tmp_path / "out")
    run_vae(tmp_path / "whole")
    logs = [(tmp_path / name / ".training/vae.jsonl").read_text() for name in ("out", "whole")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_with_workers(number, tmp_path):
    """The signal goes to the whole group, as a terminal's or SLURM's does."""
    words = (
        "--settings mini --model checkpoints/mini --data mini --device cpu per_object=15 steps=9 workers=2"
    )
    command = [
        sys.executable,
        "-m",
        "diffusion_model_finetuning.train_sd",
        *words.split(),
        "--out",
        str(tmp_path),
    ]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY, start_new_session=True)
    began = time.monotonic()
    while not (workers := psutil.Process(process.pid).children()) and time.monotonic() - began < 60:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, number)
    began = time.monotonic()
    assert process.wait(20) == 128 + number and time.monotonic() - began < 5  # two seconds, on a busy machine
    psutil.wait_procs(workers, timeout=2)
    assert workers and not any(worker.is_running() for worker in workers)
    said = (tmp_path / "log").read_text()
    assert "stopped; the same command" in said and "Traceback" not in said
