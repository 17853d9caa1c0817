"""Conversion of whole models: the same bits there and back, and what others' tools make of the result."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from omegaconf import OmegaConf
from safetensors.torch import load_file

from diffusion_model_finetuning import convert
from diffusion_model_finetuning.core import formats, ip2p
from diffusion_model_finetuning.core.load import load_run
from diffusion_model_finetuning.core.sd import load_sd, noise_of, sample
from evaluation import protocol
from evaluation.core.tensors import save_tensors
from machine_unlearning import sample as sampler
from machine_unlearning.esd import train as esd
from machine_unlearning.seot import train as seot
from tests import tiny

PROMPTS = ["A Cats image in Sketch style.", "Rust style"]
QUICK = "steps=1 walk=2 batch=1 size=16 lr=0.05"


def run_convert(*words):
    convert.main([str(word) for word in words])


@pytest.fixture(scope="module")
def mini(tmp_path_factory, tiny_sd):
    """The tiny model stored in half precision, as the shipped miniature is."""
    folder = tmp_path_factory.mktemp("half") / "model"
    run_convert(tiny_sd, folder, "--half")
    return folder


@pytest.fixture(scope="module")
def run(tiny_sd, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "esd"
    words = f"--target Sketch --model {tiny_sd} --out {out} --device cpu {QUICK}"
    esd.main(words.split())
    return out


def tensors(folder):
    files = sorted(folder.glob("*/*.safetensors"))
    assert len(files) == 3
    return {f"{file.parent.name}/{key}": tensor for file in files for key, tensor in load_file(file).items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


def diffusers_images(pipe, **more):
    """Of PROMPTS, in [0,1], from the noise that `sample` starts from."""
    pipe.set_progress_bar_config(disable=True)
    latents = torch.stack([noise_of(seed, (4, 8, 8)) for seed in range(2)])
    size = {"height": 16, "width": 16}
    return pipe(
        PROMPTS, latents=latents, num_inference_steps=4, guidance_scale=4.0, output_type="np", **size, **more
    ).images


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("half", [False, True])
def test_there_and_back(tiny_sd, mini, tmp_path, suffix, half):
    source, file = mini if half else tiny_sd, tmp_path / f"model{suffix}"
    run_convert(source, file)
    run_convert(file, tmp_path / "back", "--config", source)
    run_convert(tmp_path / "back", tmp_path / f"again{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == file.read_bytes()
    content = load_file(file) if suffix == ".safetensors" else torch.load(file, weights_only=True)
    if suffix == ".ckpt":
        assert content.keys() == {"state_dict", "global_step"} and content["global_step"] == 0
        content = content["state_dict"]
    dtypes = {tensor.dtype for key, tensor in content.items() if key.startswith(("model.", "first", "cond"))}
    assert dtypes == {torch.float16 if half else torch.float32, torch.int64}
    assert same(
        {key.replace("text_model.", ""): tensor for key, tensor in tensors(tmp_path / "back").items()},
        {key.replace("text_model.", ""): tensor for key, tensor in tensors(source).items()},
    )
    draw = PROMPTS, [0, 1], 4, 4.0
    expected = sample(load_sd(source), *draw)
    assert np.array_equal(sample(load_sd(tmp_path / "back"), *draw), expected)
    assert np.array_equal(sample(load_sd(file, config=source), *draw), expected)


def test_a_folder_is_written_for_older_tools_too(tiny_sd, tmp_path):
    run_convert(tiny_sd, tmp_path / "copy")
    names = load_file(tmp_path / "copy/text_encoder/model.safetensors").keys()
    assert names and all(name.startswith("text_model.") for name in names)
    folder = tmp_path / "copy/tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    tokenizer = load_sd(tiny_sd).tokenizer
    assert vocabulary == tokenizer.get_vocab() and all("".join(pair.split()) in vocabulary for pair in merges)
    (folder / "tokenizer.json").unlink()
    assert load_sd(tmp_path / "copy").tokenizer(PROMPTS)["input_ids"] == tokenizer(PROMPTS)["input_ids"]
    assert json.loads((tmp_path / "copy/canvas.json").read_text()) == tiny.CARD


@pytest.mark.parametrize("name", ["folder", "file.ckpt", "file.safetensors"])
def test_an_exported_run_is_the_unlearned_model(tiny_sd, run, tmp_path, name):
    """In an unmodified diffusers pipeline, which reads both layouts."""
    run_convert(tiny_sd, tmp_path / name, "--run", run)
    edited = load_sd(tiny_sd)
    load_run(edited, run)
    draw = PROMPTS, [0, 1], 4, 4.0
    expected = sample(edited, *draw)
    assert not np.array_equal(expected, sample(load_sd(tiny_sd), *draw))
    config = None if name == "folder" else tiny_sd
    assert np.array_equal(sample(load_sd(tmp_path / name, config=config), *draw), expected)
    options = {"safety_checker": None, "local_files_only": True, "torch_dtype": torch.float32}
    if name == "folder":
        pipe = StableDiffusionPipeline.from_pretrained(tmp_path / name, **options)
    else:
        pipe = StableDiffusionPipeline.from_single_file(
            str(tmp_path / name), config=str(tiny_sd), **options, scheduler=edited.scheduler
        )
    assert tiny.changed(pipe.unet.state_dict(), edited.unet.state_dict()) == set()
    assert np.abs(diffusers_images(pipe) * 255 - expected).max() <= 1


def test_what_a_run_cannot_give_is_refused(tiny_sd, run, mini, tmp_path, capsys):
    words = f"--target Sketch --model {tiny_sd} --out {tmp_path / 'seot'} --device cpu"
    seot.main(words.split())
    other = tiny.build_sd(tmp_path / "other", seed=1)
    for words, message in [
        ((tiny_sd, tmp_path / "a.ckpt", "--run", tmp_path / "seot"), "seot acts while images are sampled"),
        ((other, tmp_path / "a.ckpt", "--run", run), "made from another base model"),
        ((tiny_sd, tmp_path / "a.ckpt", "--run", tmp_path), "no record.json"),
        ((tiny_sd, mini), "exists already"),
        ((tiny_sd, tmp_path / "a.ckpt", "--weights", "ema"), "--weights ema"),
    ]:
        with pytest.raises(SystemExit) as exit:
            run_convert(*words)
        assert exit.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "a.ckpt").exists()


def test_averages_and_other_objects(tiny_sd, tmp_path, capsys):
    sd = load_sd(tiny_sd)
    unet = sd.unet.state_dict()
    averages = {key: tensor + 1 for key, tensor in unet.items()} | {"decay": 0.9999, "num_updates": 3}
    state = formats.to_compvis(unet, sd.vae.state_dict(), sd.text_encoder.state_dict(), averages)
    torch.save({"state_dict": state, "callbacks": {protocol.Protocol: 1}}, tmp_path / "trained.ckpt")
    words = tmp_path / "trained.ckpt", tmp_path / "out", "--config", tiny_sd, "--weights", "ema"
    with pytest.raises(SystemExit):
        run_convert(*words)
    assert "--ignore-objects" in capsys.readouterr().err
    run_convert(*words, "--ignore-objects")
    assert same(
        load_sd(tmp_path / "out").unet.state_dict(), {key: tensor + 1 for key, tensor in unet.items()}
    )


def test_instruct_pix2pix(tiny_sd, tmp_path):
    sd = load_sd(tiny_sd)
    ip2p.inflate(sd)
    sd.unet.conv_in.weight[:, 4:] = torch.randn(16, 4, 3, 3)
    state = formats.to_compvis(*(m.state_dict() for m in (sd.unet, sd.vae, sd.text_encoder)))
    save_tensors(tmp_path / "edit.ckpt", state, wrapped=True)
    run_convert(tmp_path / "edit.ckpt", tmp_path / "edit", "--config", tiny_sd)
    got = load_sd(tmp_path / "edit")
    assert ip2p.edits(got) and got.fingerprint() == sd.fingerprint()
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "edit", safety_checker=None)
    assert same(pipe.unet.state_dict(), sd.unet.state_dict())


def test_methods_and_samplers_take_a_file(tiny_sd, run, tmp_path):
    """Unlearned from and sampled with the file: the very run and pictures that the folder gives."""
    file = tmp_path / "model.ckpt"
    run_convert(tiny_sd, file)
    model = ["--model", str(file), "--config", str(tiny_sd)]
    esd.main([*f"--target Sketch --device cpu {QUICK}".split(), *model, "--out", str(tmp_path / "run")])
    stored = [load_file(folder / "weights.safetensors") for folder in (run, tmp_path / "run")]
    records = [json.loads((folder / "record.json").read_text()) for folder in (run, tmp_path / "run")]
    assert same(*stored) and records[0]["model"] == records[1]["model"]
    assert records[1]["variant"] == "mini"  # the card beside the tokenizer says so

    small = {"themes": ["Rust"], "objects": ["Cats"], "targets": ["Rust"], "steps": 4, "size": 16}
    mini_protocol = OmegaConf.load(protocol.FOLDER / "mini.yaml")
    OmegaConf.save(OmegaConf.merge(mini_protocol, small), tmp_path / "small.yaml")
    pictures = []
    for number, (base, folder) in enumerate(((["--model", str(tiny_sd)], run), (model, tmp_path / "run"))):
        out = tmp_path / f"answers{number}"
        flags = ["--run", str(folder), "--protocol", str(tmp_path / "small.yaml"), "--device", "cpu"]
        sampler.main([*base, *flags, "--out", str(out)])
        pictures.append({path.name: path.read_bytes() for path in out.glob("*.png")})
    assert pictures[0] == pictures[1] and len(pictures[0]) > 0


def test_shipped_miniature(tmp_path):
    run_convert("checkpoints/mini", tmp_path / "mini.ckpt")
    got = load_sd(tmp_path / "mini.ckpt", config="checkpoints/mini")
    folder = load_sd("checkpoints/mini")
    assert got.fingerprint() == folder.fingerprint() and got.card == folder.card
    draw = ["A Cats image in Sketch style."], [0], 3, 5.0
    assert np.array_equal(sample(got, *draw), sample(folder, *draw))
