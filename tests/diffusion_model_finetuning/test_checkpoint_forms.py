"""Checkpoints as people have them: read alike in every form, or refused in a sentence with their name."""

import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning import convert
from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.load import load_run
from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core import record
from evaluation.core.errors import UserError

PARTS = {"unet": "unet", "vae": "vae", "text_encoder": "text_encoder"}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


@pytest.fixture
def copy(tiny_sd, tmp_path):
    return shutil.copytree(tiny_sd, tmp_path / "model")


@pytest.mark.parametrize("shards", [None, "20KB"])
@pytest.mark.parametrize("variant", [None, "fp16", "non_ema"])
@pytest.mark.parametrize("safe", [True, False])
def test_every_form_of_save_pretrained(sd, copy, variant, shards, safe):
    for part in PARTS:
        network = getattr(sd, part)
        for path in (copy / part).iterdir():
            path.unlink()
        if part == "text_encoder" and not safe:  # transformers writes no pickles any more
            torch.save(
                network.state_dict(), copy / part / f"pytorch_model{f'.{variant}' if variant else ''}.bin"
            )
            network.config.save_pretrained(copy / part)
            continue
        more = {"max_shard_size": shards} if shards else {}
        network.save_pretrained(
            copy / part, variant=variant, **({} if safe else {"safe_serialization": False}), **more
        )
    if shards:
        assert list((copy / "unet").glob("*.index*.json")) and len(list((copy / "unet").iterdir())) > 4
    assert load_sd(copy).fingerprint() == sd.fingerprint()


def test_the_plain_file_is_the_model(sd, copy):
    """Beside which variants lie."""
    for variant in ("fp16", "non_ema"):
        other = {name: tensor + 1 for name, tensor in sd.unet.state_dict().items()}
        save_file(other, (copy / WEIGHTS).with_suffix(f".{variant}.safetensors"))
    assert load_sd(copy).fingerprint() == sd.fingerprint()
    (copy / WEIGHTS).unlink()
    (copy / WEIGHTS).with_suffix(".fp16.safetensors").write_bytes(
        (copy / WEIGHTS.replace(".s", ".non_ema.s")).read_bytes()
    )
    assert load_sd(copy).fingerprint() != sd.fingerprint()


@pytest.mark.parametrize(
    "names, message", [([], "no file of weights"), (["flax_model.msgpack"], "flax_model.msgpack")]
)
def test_what_lies_in_place_of_weights(copy, names, message):
    (copy / WEIGHTS).unlink()
    for name in names:
        (copy / "unet" / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"unet/.*{message}"):
        load_sd(copy)


@pytest.mark.parametrize("fault", ["missing", "cut", "outside", "lacking"])
def test_damaged_shards(sd, copy, fault, tmp_path):
    for path in (copy / "unet").iterdir():
        path.unlink()
    sd.unet.save_pretrained(copy / "unet", max_shard_size="20KB")
    (index,) = (copy / "unet").glob("*.index.json")
    first = sorted((copy / "unet").glob("*-00001-*"))[0]
    if fault == "missing":
        first.unlink()
    elif fault == "cut":
        first.write_bytes(first.read_bytes()[:50])
    elif fault == "outside":
        shutil.move(first, tmp_path)
        index.write_text(index.read_text().replace(first.name, f"../../{first.name}"))
    else:
        tensors = load_file(first)
        tensors.pop(min(tensors))
        save_file(tensors, first)
    with pytest.raises(UserError, match="unet/"):
        load_sd(copy)


PREFIXES = ["", "module.", "unet.", "model.", "module.unet.", "_orig_mod.", "module.model."]


@given(
    some.sampled_from(PREFIXES),
    some.sampled_from(["bare", "state_dict", "unet", "modules", "compvis"]),
    some.sets(some.integers(0, 10**4), min_size=1, max_size=9),
)
@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_part_of_a_unet(sd, tiny_sd, tmp_path, caplog, prefix, form, numbers):
    """By diffusers' names or by CompVis's, bare or nested, under any of the prefixes that trainers leave."""
    caplog.clear()
    unet = sd.unet.state_dict()
    names = {sorted(unet)[number % len(unet)] for number in numbers}
    changed = {name: unet[name] + 1 for name in names}
    content = {prefix + name: tensor for name, tensor in changed.items()}
    if form == "compvis":
        table = formats.inverse(formats.unet_table(unet))
        content = {formats.rename(name, table): tensor for name, tensor in changed.items()}
    elif form == "modules":  # as ESD's first files: a state dict a module
        content = {}
        for name, tensor in changed.items():
            module, _, weight = (prefix + name).rpartition(".")
            content.setdefault(module, {})[weight] = tensor
    elif form != "bare":
        content = {form: content}
    torch.save(content, tmp_path / "part.pt")
    read = load_sd(tmp_path / "part.pt", config=tiny_sd).unet.state_dict()
    assert all(torch.equal(read[name], changed.get(name, unet[name])) for name in unet)
    assert f"{len(names)} of the UNet's {len(unet)} tensors are from this file" in caplog.text


@pytest.mark.parametrize(
    "name", ["conv_in.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
)
def test_parts_that_do_not_fit(sd, tiny_sd, tmp_path, name):
    tensor = sd.unet.state_dict()[name]
    for content in (
        {name: tensor[:-1]},
        {name: tensor, "mid_block.foo.weight": tensor},
        {name: tensor * torch.nan},
    ):
        torch.save(content, tmp_path / "part.pt")
        with pytest.raises(UserError, match=r"part\.pt"):
            load_sd(tmp_path / "part.pt", config=tiny_sd)


def test_averages_alone(sd, tiny_sd, tmp_path, caplog):
    averages = {key: tensor + 1 for key, tensor in sd.unet.state_dict().items()} | {
        "decay": 0.9999,
        "num_updates": 3,
    }
    state = formats.to_compvis(*(getattr(sd, part).state_dict() for part in PARTS), averages)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(formats.UNET)}
    torch.save({"state_dict": state}, tmp_path / "ema.ckpt")
    for weights in ("raw", "ema"):
        read = load_sd(tmp_path / "ema.ckpt", config=tiny_sd, weights=weights).unet.state_dict()
        assert all(torch.equal(tensor, averages[key]) for key, tensor in read.items())
    assert "averaged weights (model_ema.*) alone" in caplog.text
    lost = next(key for key in state if key.startswith(formats.EMA) and "conv" in key)
    torch.save({"state_dict": {key: state[key] for key in state if key != lost}}, tmp_path / "ema.ckpt")
    with pytest.raises(UserError, match="1 of the UNet's tensors have no average"):
        load_sd(tmp_path / "ema.ckpt", config=tiny_sd)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(copy, part, odd):
    (path,) = (copy / part).glob("*.safetensors")
    tensors = load_file(path)
    name = max(tensors)
    tensors[name].view(-1)[-1] = odd
    save_file(tensors, path)
    with pytest.raises(UserError, match=rf"{path.name}: its tensor {name} holds (NaN|infinity)"):
        load_sd(copy)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "model_max_length"])
def test_a_tokenizer_without_a_length(sd, copy, file):
    path = copy / "tokenizer" / "tokenizer_config.json"
    if file == path.name:
        path.unlink()
    else:
        path.write_text(path.read_text().replace('"model_max_length"', '"other"'))
    assert load_sd(copy).fingerprint() == sd.fingerprint()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t | {"foo": t["conv_in.bias"].clone()}, "1 weights unknown to the model, .*first foo"),
        (
            lambda t: {"conv_in.bias": t["conv_in.bias"][:-1].clone()},
            "or of another size than there, first conv_in.bias",
        ),
        (lambda t: {"conv_in.bias": t["conv_in.bias"] * torch.nan}, "conv_in.bias holds NaN"),
    ],
)
def test_runs_that_do_not_fit(tiny_sd, tmp_path, change, message):
    sd = load_sd(tiny_sd)
    tensors = change({"conv_in.bias": sd.unet.state_dict()["conv_in.bias"] + 1})
    save_file(tensors, tmp_path / record.WEIGHTS, {"model": sd.fingerprint()})
    before = sd.unet.conv_in.bias.clone()
    with pytest.raises(UserError, match=message):
        load_run(sd, tmp_path)
    assert torch.equal(sd.unet.conv_in.bias, before)
    save_file(tensors, tmp_path / record.WEIGHTS)
    with pytest.raises(UserError, match=f"{record.WEIGHTS}: "):
        load_run(sd, tmp_path)


def test_a_conversion_killed_at_any_change(tiny_sd, tmp_path, monkeypatch, capsys):
    """By an error in place of a kill; afterwards the same command does its work, or finds it done."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    for _ in range(2):
        convert.main([str(tiny_sd), str(whole)])
    assert "written already" in capsys.readouterr().out
    replace = os.replace
    for limit in (1, 3, 8):
        left = iter(range(limit))

        def stop(*paths, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            replace(*paths)

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr("os.replace", stop)
            convert.main([str(tiny_sd), str(again)])
        assert not again.exists()
    convert.main([str(tiny_sd), str(again)])
    for path in whole.rglob("*.*"):
        assert (again / path.relative_to(whole)).read_bytes() == path.read_bytes()
