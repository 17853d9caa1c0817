"""Stored weights: whose they are, and what is refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.errors import UserError
from machine_unlearning.core import params
from machine_unlearning.core.weights import load_run
from machine_unlearning.esd import train as esd
from tests import tiny


@pytest.fixture(scope="module")
def run(tiny_sd, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "esd"
    texts = f"--target Sketch --model {tiny_sd} --out {out} --device cpu steps=1 walk=2 batch=1 size=16"
    esd.main(texts.split())
    return out


def test_another_base_model_is_refused(run, tmp_path):
    other = load_sd(tiny.build_sd(tmp_path / "other", seed=1))
    before = {name: tensor.clone() for name, tensor in other.unet.state_dict().items()}
    with pytest.raises(UserError, match=r"--run .*esd: made from another base model"):
        load_run(other, run)
    assert not tiny.changed(before, other.unet.state_dict())


def test_a_finished_run_knows_its_model_under_another_path(run, tiny_sd, tmp_path, capsys):
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    shutil.copytree(tiny_sd, tmp_path / "same")
    tiny.build_sd(tmp_path / "other", seed=1)
    texts = ["--target", "Sketch", "--out", run, "--device", "cpu", "steps=1", "walk=2", "batch=1", "size=16"]
    esd.main([*map(str, texts), "--model", str(tmp_path / "same")])
    assert "already finished" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        esd.main([*map(str, texts), "--model", str(tmp_path / "other")])
    assert exit.value.code == 2 and "holds a finished run with another model;" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == files


def test_damaged_or_missing_weights(run, tiny_sd, tmp_path):
    sd = load_sd(tiny_sd)
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run/weights.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    for content in (whole[:200], b"", whole[:-50]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.safetensors: damaged"):
            load_run(sd, tmp_path / "run")
    save_file(tensors, path)  # somebody else's file: says nothing of a base model
    with pytest.raises(UserError, match="not weights stored by a run"):
        load_run(sd, tmp_path / "run")
    name, before = min(tensors), {key: value.clone() for key, value in sd.unet.state_dict().items()}
    for change, message in (
        (
            {"conv_extra.weight": torch.zeros(1)},
            "1 weights unknown to the model, .*first conv_extra",
        ),
        ({name: torch.zeros(3)}, f"of another size than there, first {name}"),
        ({name: tensors[name] * torch.nan}, f"its tensor {name} holds NaN"),
    ):
        save_file(tensors | change, path, {"model": sd.fingerprint()})
        with pytest.raises(UserError, match=message):
            load_run(sd, tmp_path / "run")
        assert not tiny.changed(before, sd.unet.state_dict())
    path.unlink()
    with pytest.raises(UserError, match=r"no weights\.safetensors"):
        load_run(sd, tmp_path / "run")


def test_scopes(tiny_sd):
    unet = load_sd(tiny_sd).unet
    blocks = [name for name, module in unet.named_modules() if name.endswith(".attn2")]
    xattn = params.trainable(unet, "xattn")
    assert {name for name, weight in unet.named_parameters() if weight.requires_grad} == set(xattn)
    assert len(xattn) == 5 * len(blocks)  # q, k, v, out and its bias
    assert set(params.trainable(unet, "xattn_kv")) == {f"{b}.to_{m}.weight" for b in blocks for m in "kv"}
    everything = {name for name, _ in unet.named_parameters()}
    assert set(params.trainable(unet, "full")) == everything
    assert not set(params.trainable(unet, "selfattn")) & set(xattn)
    kept = everything - set(params.trainable(unet, "noxattn")) - set(xattn)
    assert {name.split(".")[0] for name in kept} == {"conv_out", "conv_norm_out", "time_embedding"}
    with pytest.raises(UserError, match="selects no weight"):
        params.trainable(torch.nn.Linear(2, 2), "xattn")
