"""CompVis files: read safely, told apart by their keys, loaded to the same network as the folder."""

import collections
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.card import SD15, read_card
from diffusion_model_finetuning.core.clip_vocabulary import clip_tokenizer
from diffusion_model_finetuning.core.load import empty
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.core.errors import UserError
from evaluation.core.tensors import read_tensors
from tests import tiny


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


@pytest.fixture
def state(sd):
    """The model as a CompVis state dict with averages that differ from the raw weights."""
    averages = {key: tensor + 1 for key, tensor in sd.unet.state_dict().items()}
    averages |= {"decay": torch.tensor(0.9999), "num_updates": torch.tensor(7)}
    return formats.to_compvis(*states(sd).values(), averages)


@pytest.fixture
def load(tiny_sd, tmp_path):
    """-> the model of a state dict, written as a file beside whose keys the tiny model's folder stands."""

    def loaded(content, name="model.ckpt", config=tiny_sd, **options):
        path = tmp_path / name
        save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
        return load_sd(path, config=config, **options)

    return loaded


def states(sd):
    return {"unet": sd.unet.state_dict(), "vae": sd.vae.state_dict(), "text": sd.text_encoder.state_dict()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_there_and_back_is_bit_identical(sd, state, dtype):
    state = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    parts = formats.from_compvis(state)
    again = formats.to_compvis(parts["unet"], parts["vae"], parts["text_encoder"], parts["ema"])
    assert again.keys() == state.keys()
    for made_anew in [*formats.schedule(), formats.EMA + "decay"]:  # always float32
        del again[made_anew], state[made_anew]
    assert same(again, state)
    assert again[f"{formats.TEXT}text_model.embeddings.position_ids"].dtype == torch.int64


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_file_gives_the_folder_s_model(sd, state, load, tiny_sd, name):
    content = state if name.endswith("safetensors") else {"state_dict": state, "global_step": 3, "epoch": 0}
    got = load(content, name)
    assert got.fingerprint() == sd.fingerprint() and got.card == sd.card == read_card(got.path, tiny_sd) != {}
    assert all(same(a, b) for a, b in zip(states(got).values(), states(sd).values()))
    draw = ["A Cats image in Sketch style.", "Rust style"], [0, 1], 4, 5.0
    assert np.array_equal(sample(got, *draw), sample(sd, *draw))


def test_a_folder_loads_as_by_the_libraries(sd, tiny_sd):
    text = CLIPTextModel.from_pretrained(tiny_sd / "text_encoder", dtype=torch.float32).eval()
    ids = sd.tokens(["A Cats image in Sketch style."])
    assert same(sd.text_encoder.state_dict(), text.state_dict())
    assert torch.equal(sd.text_encoder(ids)[0], text(ids)[0])
    for network, module in ((UNet2DConditionModel, sd.unet), (AutoencoderKL, sd.vae)):
        part = "unet" if network is UNet2DConditionModel else "vae"
        assert same(module.state_dict(), network.from_pretrained(tiny_sd / part).state_dict())
        assert module.config.keys() >= network.load_config(tiny_sd / part).keys() - {"_class_name"}


@pytest.mark.parametrize("average", [False, True])
def test_diffusers_converts_alike(sd, state, average):
    unet = convert_ldm_unet_checkpoint(dict(state), dict(sd.unet.config), extract_ema=average)
    ours = formats.from_compvis(state)["ema" if average else "unet"]
    assert same(unet, {key: ours[key] for key in unet}) and unet.keys() == sd.unet.state_dict().keys()
    vae = convert_ldm_vae_checkpoint(dict(state), dict(sd.vae.config))
    assert same(vae, sd.vae.state_dict())


def test_raw_or_averaged_weights(sd, state, load):
    got = load({"state_dict": state}, weights="ema").unet.state_dict()
    assert same(got, {key: tensor + 1 for key, tensor in sd.unet.state_dict().items()})
    lost = next(key for key in state if key.startswith(formats.EMA) and "conv" not in key and "0" in key)
    for without in ({lost}, {key for key in state if key.startswith(formats.EMA)}):
        with pytest.raises(UserError, match=r"--weights ema: \d+ of the UNet's tensors have no average"):
            load({key: state[key] for key in state if key not in without}, weights="ema")


def test_older_names(sd, state, load, tiny_sd, tmp_path):
    flat = {key.replace("transformer.text_model.", "transformer."): tensor for key, tensor in state.items()}
    extra = {"logvar": torch.zeros(1000), f"{formats.VAE}loss.logvar": torch.zeros(())}
    bare = {key: state[key] for key in state if not key.startswith((formats.EMA, "betas"))}
    for content in (flat | extra, bare):
        assert load(content).fingerprint() == sd.fingerprint()
    folder = tmp_path / "old"
    shutil.copytree(tiny_sd, folder)
    weights = folder / "text_encoder" / "model.safetensors"
    ids = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    torch.save(formats.classic_text(load_file(weights)) | ids, folder / "text_encoder" / "pytorch_model.bin")
    weights.unlink()
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    vae = load_file(weights)
    for now, then in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        vae = {key.replace(f".{now}.", f".{then}."): tensor for key, tensor in vae.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in vae
    save_file(vae, weights)
    assert load_sd(folder).fingerprint() == sd.fingerprint()


def test_part_of_a_model_is_completed_from_its_base(sd, state, load):
    other = {key: tensor + 1 for key, tensor in sd.unet.state_dict().items()}
    theirs = formats.unet_to_compvis(other)
    attention = {key for key in other if ".attn2." in key}
    keys = formats.inverse(formats.unet_table(other))
    contents = {
        "diffusers UNet": (other, set(other)),
        "bare CompVis UNet": (theirs, set(other)),
        "CompVis UNet alone": ({formats.UNET + key: tensor for key, tensor in theirs.items()}, set(other)),
        "cross-attention": ({key: other[key] for key in attention}, attention),
        "CompVis cross-attention": (
            {formats.UNET + formats.rename(key, keys): other[key] for key in attention}, attention
        ),
    }  # fmt: skip
    for content, edited in contents.values():
        got = load({"state_dict": content})
        assert tiny.changed(sd.unet.state_dict(), got.unet.state_dict()) == edited
        assert same(got.vae.state_dict(), sd.vae.state_dict())
        with pytest.raises(UserError, match=r"name its base model's folder|unknown to a model like"):
            load({"state_dict": content}, config=None)


def test_doubled_input_channels(sd, state, load):
    first = f"{formats.UNET}input_blocks.0.0.weight"
    doubled = state | {first: torch.cat([state[first], torch.zeros_like(state[first])], 1)}
    unet = load(doubled).unet
    assert unet.config.in_channels == 2 * sd.unet.config.in_channels and unet.config.out_channels == 4
    x, text = torch.randn(1, 8, 8, 8), sd.embed(["Rust style"])
    torch.testing.assert_close(
        unet(x, 5, encoder_hidden_states=text).sample, sd.unet(x[:, :4], 5, encoder_hidden_states=text).sample
    )
    inpainting = torch.cat([state[first], torch.zeros(len(state[first]), 5, 3, 3)], 1)
    with pytest.raises(UserError, match=r"inpainting model \(9 input channels\)"):
        load(state | {first: inpainting})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"cond_stage_model.model.ln_final.weight": torch.zeros(1)}, "Stable Diffusion 2"),
        (lambda s: s | {"conditioner.embedders.0.x": torch.zeros(1)}, "Stable Diffusion XL"),
        (lambda s: {"lora_unet_mid_block.lora_up.weight": torch.zeros(1)}, "adapters"),
        (lambda s: {"layer.weight": torch.zeros(1)}, r"keys of its tensors: layer\.weight"),
        (lambda s: {}, "no Stable Diffusion"),
        (lambda s: [1, 2], "keys of its tensors: none"),
        (lambda s: {"state_dict": [s]}, "keys of its tensors: none"),
        (lambda s: {5: torch.zeros(1)}, "keys of its tensors: 5"),
        (lambda s: s | {f"{formats.UNET}label_emb.0.weight": torch.zeros(1)}, r"has label_emb\.0"),
        (lambda s: s | {f"{formats.UNET}out.2.bias": torch.zeros(5)}, "1 tensors of its UNet2D"),
        (lambda s: {k: s[k] for k in s if "quant" not in k}, r"4 .*AutoencoderKL .*first post_q"),
        (lambda s: {k: s[k] for k in s if "final_layer" not in k}, "2 tensors of its CLIPTextModel"),
    ],
)  # fmt: skip
def test_foreign_or_damaged_files_are_refused_in_one_sentence(state, load, change, message):
    with pytest.raises(UserError, match=message) as error:
        load(change(state))
    assert "model.ckpt" in str(error.value) and "\n" not in str(error.value)


def test_cut_files(state, load, tmp_path, tiny_sd):
    for name in ("model.ckpt", "model.safetensors"):
        load(state, name)
        path = tmp_path / name
        for length in (0, 100, path.stat().st_size // 2):
            path.write_bytes(path.read_bytes()[:length])
            with pytest.raises(UserError, match=r"cannot be loaded|damaged"):
                load_sd(path, config=tiny_sd)
        path.write_bytes(b"an error page\n")
        with pytest.raises(UserError, match=r"cannot be loaded|damaged"):
            load_sd(path, config=tiny_sd)
    for path, config in ((tmp_path / "none.ckpt", None), (tmp_path / "model.ckpt", tmp_path / "none")):
        with pytest.raises(UserError, match=r"none.*: no such"):
            load_sd(path, config=config)


class Callback:
    """What a trainer may leave in its files."""


class Malicious:
    def __init__(self, call, *words):
        self.call = call, words

    def __reduce__(self):
        return self.call


def test_other_objects_are_refused_or_ignored(state, load, sd):
    content = {"state_dict": state, "callbacks": {Callback: {"best": 1}}, "hparams": [Callback()]}
    with pytest.raises(UserError, match=r"Callback.*diffusion_model_finetuning\.convert .* --ignore-objects"):
        load(content)
    assert load(content, ignore_objects=True).fingerprint() == sd.fingerprint()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("form", ["zip", "old torch", "pickle", "protocol 4"])
@pytest.mark.parametrize("call", [os.system, subprocess.check_call, Path.touch, exec])
def test_a_malicious_pickle_does_not_run(state, tmp_path, ignore, form, call):
    trace, path = tmp_path / "it_ran", tmp_path / "model.ckpt"
    words = {
        os.system: f"touch {trace}",
        subprocess.check_call: ["touch", str(trace)],
        Path.touch: trace,
        exec: f"open({str(trace)!r}, 'w')",
    }[call]
    content = {"state_dict": state, "callbacks": Malicious(call, words)}
    if form in ("zip", "old torch"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps(content, protocol=2 if form == "pickle" else 4))
    try:
        tensors = read_tensors(path, ignore)
    except UserError as error:
        tensors = None
        assert "\n" not in str(error)
    assert not trace.exists()
    assert ignore or tensors is None
    pickle.loads(pickle.dumps(content["callbacks"]))
    assert trace.exists()  # the pickle is a malicious one


def test_built_in_sizes_come_with_clip_s_tokenizer(monkeypatch):
    unet, vae = empty(SD15, "unet"), empty(SD15, "vae")
    assert sum(weight.numel() for weight in unet.parameters()) == 859_520_964
    assert vae.config.scaling_factor == 0.18215 and vae.config.latent_channels == 4
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.heads == 8
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49_408
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(tokenizer([""], padding="max_length")["input_ids"][0]) == 77
    monkeypatch.setattr("diffusion_model_finetuning.core.clip_vocabulary.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--config is missing and open-clip-torch"):
        clip_tokenizer()


def test_schedule_is_stable_diffusion_s(sd):
    buffers = formats.schedule()
    assert all(buffer.shape == (1000,) and buffer.dtype == torch.float32 for buffer in buffers.values())
    torch.testing.assert_close(buffers["alphas_cumprod"], sd.abar)
    torch.testing.assert_close(buffers["betas"], sd.scheduler.betas)
    a, before, beta = (buffers[key].double() for key in ("alphas_cumprod", "alphas_cumprod_prev", "betas"))
    # the posterior of x_{t-1} given x_t = sqrt(a) x_0 + sqrt(1-a) e: its mean for e = 0 is sqrt(before) x_0
    mean = buffers["posterior_mean_coef1"] + buffers["posterior_mean_coef2"] * a.sqrt()
    torch.testing.assert_close(mean, before.sqrt(), rtol=1e-4, atol=1e-4)
    precision = (1 - beta) / beta + 1 / (1 - before)
    variance = buffers["posterior_variance"].double()
    torch.testing.assert_close(variance[1:], 1 / precision[1:], rtol=1e-3, atol=1e-8)
    assert variance[0] == 0
    assert buffers["posterior_log_variance_clipped"][0] == pytest.approx(np.log(1e-20))
    one, minus_one = buffers["sqrt_recip_alphas_cumprod"], buffers["sqrt_recipm1_alphas_cumprod"]
    torch.testing.assert_close(one**2 - 1, minus_one**2, rtol=1e-3, atol=1e-6)


def test_every_ema_name_is_its_own(state):
    names = collections.Counter(key for key in state if key.startswith(formats.EMA))
    assert len(names) == sum(key.startswith(formats.UNET) for key in state) + 2
