"""BLIP-Diffusion on a tiny release of random weights; the original's figures are in tests/parity."""

import functools
import json
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionControlNetPipeline
from diffusers.pipelines.deprecated.blip_diffusion.blip_image_processing import BlipImageProcessor
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from diffusion_model_finetuning.core.clip_vocabulary import clip_tokenizer
from diffusion_model_finetuning.scratch import train_tokenizer
from evaluation.canvas import PHOTO
from evaluation.core import environment
from evaluation.core.errors import UserError
from style_transfer import transfer
from style_transfer.blip import model
from style_transfer.blip.edges import canny
from style_transfer.blip.qformer import QFormer
from style_transfer.blip.released import load_qformer
from style_transfer.core.networks import with_options
from style_transfer.protocol import Row
from tests.seeded_weights import seeded_input
from tests.style_transfer import blip_release

RELEASE = 7_688_436_558  # bytes of all files, float32
QUICK = {"steps": 3, "guidance": 3.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    tokenizer = train_tokenizer(["a Bears image, a tall Towers image", model.OPTIONS["negative"]], 24)
    return blip_release.build(tmp_path_factory.mktemp("blip"), blip_release.TINY, tokenizer)


@pytest.fixture(scope="module")
def network(files):
    return model.load(files)


def images(name, count=3, height=16, width=24):
    return torch.from_numpy(seeded_input(name, (count, 3, height, width)))


def photos(name, count=3):
    """Images with edges: resized to where edges are looked for, smaller steps would be too smooth."""
    return images(name, count).round()


def test_interface(network):
    assert network.multiple == 2 and not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    out = network.stylise(photos("content"), images("style", height=9, width=7), subjects="Bears", **QUICK)
    assert out.shape == (3, 3, 16, 24) and out.dtype == torch.float32
    odd = network.multiple * 9, network.multiple * 11
    assert network.stylise(images("content", 1, *odd), images("style", 1), **QUICK).shape[2:] == odd
    assert 0 <= out.min() < out.max() <= 1


def test_batch_equals_single(network):
    """Also if the batch pads some subjects' words, and each image has its own noise."""
    subjects, seeds = ["Bears", "tall Towers", "Bears"], [[0, "Bears", 19], [0, "Towers", 20], 7]
    content, style = photos("content"), images("style")
    batch = network.stylise(content, style, subjects=subjects, seeds=seeds, **QUICK)
    for i in range(3):
        single = network.stylise(
            content[i : i + 1], style[i : i + 1], subjects=subjects[i], seeds=[seeds[i]], **QUICK
        )
        torch.testing.assert_close(batch[i : i + 1], single, rtol=0, atol=1e-4)


def test_everything_given_has_influence(network):
    content, style = photos("content", 1), images("style", 1)
    base = network.stylise(content, style, subjects="Bears", **QUICK)
    assert torch.equal(base, network.stylise(content, style, subjects="Bears", **QUICK))
    changes = {
        "content": network.stylise(photos("other", 1), style, subjects="Bears", **QUICK),
        "style": network.stylise(content, images("other", 1), subjects="Bears", **QUICK),
        "subject": network.stylise(content, style, subjects="Towers", targets="Bears", **QUICK),
        "target": network.stylise(content, style, subjects="Bears", targets="Towers", **QUICK),
        "prompt": network.stylise(content, style, subjects="Bears", prompt="in snow", **QUICK),
        "seed": network.stylise(content, style, subjects="Bears", seeds=1, **QUICK),
        "steps": network.stylise(content, style, subjects="Bears", steps=4, guidance=3.0),
        "guidance": network.stylise(content, style, subjects="Bears", steps=3, guidance=1.0),
        "negative": network.stylise(content, style, subjects="Bears", negative="", **QUICK),
        "solver": network.stylise(content, style, subjects="Bears", solver="dpm", **QUICK),
    }
    assert not [name for name, image in changes.items() if (image - base).abs().max() < 1e-4]


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_loop_is_the_library_s(network, guidance):
    """From the same text, edges and noise, diffusers' own ControlNet pipeline makes the same image."""
    edges, vectors = (
        network.encode_content(photos("content", 1)),
        with_options(network, subjects="Bears").encode_style(images("style", 1)),
    )
    pipeline = StableDiffusionControlNetPipeline(
        network.vae, None, None, network.unet, network.controlnet,
        PNDMScheduler.from_config(network.scheduler.config), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        image=edges,
        prompt_embeds=network.text(vectors, ["Towers"]),
        negative_prompt_embeds=network.text_encoder(network.ids([model.OPTIONS["negative"]], 24)),
        latents=model.noise_of("a", (1, 4, 8, 12)),
        num_inference_steps=4,
        guidance_scale=guidance,
        output_type="pt",
    ).images
    options = {"targets": "Towers", "seeds": "a", "steps": 4, "guidance": guidance}
    got = with_options(network, **options).decode(edges, vectors)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_style_image_and_prompt(network, monkeypatch):
    """The Q-Former sees what the library's image processor makes and is asked for the style images' objects;
    the prompt names the contents', 20 times."""
    seen = {}

    def forward(pictures, ids, mask):
        seen.update(pictures=pictures, words=ids.tolist(), mask=mask.tolist())
        return torch.zeros(len(ids), 4, 16)

    def ids(prompts, length):
        seen.update(prompts=prompts, length=length)
        return torch.zeros(len(prompts), length, dtype=torch.long)

    monkeypatch.setattr(network.qformer, "forward", forward)
    monkeypatch.setattr(network, "ids", ids)
    style = (images("style", 2, 30, 20) * 255).round()
    asked = with_options(network, subjects=["Bears", "tall Towers"])
    network.text(asked.encode_style(style / 255), ["Cats", "Sea"])
    pictures = [Image.fromarray(s.permute(1, 2, 0).byte().numpy()) for s in style]
    processor = BlipImageProcessor(size={"height": 16, "width": 16}, do_center_crop=False)
    expected = processor.preprocess(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen["pictures"], expected, rtol=0, atol=1e-5)
    assert seen["words"] == [[2, 5, 3, 0], [2, 7, 6, 3]] and seen["mask"] == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen["prompts"] == [", ".join([f"a {name} a {name} image"] * 20) for name in ("Cats", "Sea")]
    assert seen["length"] == 24 - 4


def test_a_pair_of_two_objects(network):
    """`--cross-object`: the style image is asked for its own object, the prompt names the content's."""
    content, style, quick = photos("content", 2), images("style", 1), with_options(network, **QUICK)
    rows, reference = [Row(PHOTO, "Bears", 19), Row(PHOTO, "Towers", 20)], Row("Sketch", "Towers", 1)
    vectors = quick.encode_style(style, [reference]).expand(2, -1, -1)
    edges = quick.encode_content(content, rows)
    made = quick.decode(edges, vectors, [(row, reference) for row in rows])
    for row, photo, image in zip(rows, content, made):
        options = {"subjects": "Towers", "targets": row.object, "seeds": [[0, list(row), list(reference)]]}
        expected = quick.stylise(photo[None], style, **options)
        torch.testing.assert_close(image[None], expected, rtol=0, atol=1e-4)
    folders = with_options(quick, subjects="Bears", targets="Towers")
    vectors = folders.encode_style(style, [Path("art.png")])
    made = folders.decode(edges[:1], vectors, [(Path("a.png"), Path("b/art.png"))])
    expected = folders.stylise(content[:1], style, seeds=[[0, ["a.png"], ["art.png"]]])
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


def test_precision(network, files):
    """The weights themselves are of half precision, all but the VAE's, and autocast changes nothing."""
    half = model.load(files).lowered(torch.bfloat16)
    parts = {name: {weight.dtype for weight in part.parameters()} for name, part in half.named_children()}
    assert parts.pop("vae") == {torch.float32} and set(parts) == {
        "qformer",
        "text_encoder",
        "unet",
        "controlnet",
    }
    assert all(dtypes == {torch.bfloat16} for dtypes in parts.values())
    content, style = photos("content", 1), images("style", 1)
    assert half.encode_style(style).dtype == torch.float32
    out = half.stylise(content, style, subjects="Bears", **QUICK)
    change = (out - network.stylise(content, style, subjects="Bears", **QUICK)).abs()
    assert out.dtype == torch.float32 and change.max() > 0 and change.mean() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half.stylise(content, style, subjects="Bears", **QUICK), out)


@pytest.mark.parametrize("name, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_command_lowers_the_weights(name, dtype, files, tmp_path, monkeypatch):
    seen, decode = [], model.BlipDiffusion.decode

    def spy(network, *args):
        seen.append((network.unet.dtype, network.controlnet.dtype, network.vae.dtype))
        return decode(network, *args)

    monkeypatch.setattr(model.BlipDiffusion, "decode", functools.wraps(decode)(spy))
    flags = ["--data", "mini", "--styles", "Sketch", "--objects", "Cats", "--batch", "1", "--limit", "1"]
    folder = str(files["qformer"].parent)
    transfer.main(
        ["blip", "--weights", folder, "--out", str(tmp_path / "out"), *flags, "--dtype", name, "steps=1"]
    )
    assert seen == [(dtype, dtype, torch.float32)]


@pytest.mark.parametrize("frequency", [1, 2, 3, 4])
def test_qformer_is_the_library_s(frequency, tmp_path):
    """Whichever layers see the image: 0, `frequency`, 2 `frequency`, ... of five, read from files."""
    torch.manual_seed(frequency)
    sizes = blip_release.TINY["qformer"] | {"depth": 5, "frequency": frequency}
    config = {
        "vision_config": blip_release.heads(blip_release.TINY["tower"]),
        "qformer_config": blip_release.heads(sizes) | {"cross_attention_frequency": frequency},
    }
    blip_release.save_own(QFormer(**sizes, tower=blip_release.TINY["tower"]), tmp_path / "qformer", config)
    ours = load_qformer(tmp_path / "qformer").eval()
    theirs = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=sizes["width"], intermediate_size=sizes["hidden"], num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["heads"], encoder_hidden_size=blip_release.TINY["tower"]["width"],
            layer_norm_eps=sizes["eps"], cross_attention_frequency=frequency, use_qformer_text_input=True,
        )
    ).eval()  # fmt: skip
    state = {name: tensor for name, tensor in ours.state_dict().items() if name.startswith("encoder.")}
    assert any(name.startswith("encoder.layer.3.cross") for name in state) == (frequency in (1, 3))
    norm = ours.embeddings["LayerNorm"].state_dict()
    theirs.load_state_dict(state | {f"layernorm.{name}": tensor for name, tensor in norm.items()})
    ids, mask = torch.tensor([[2, 5, 3, 0], [2, 7, 6, 3]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    queries, pictures = ours.query_tokens.expand(2, -1, -1), images("pictures", 2, 16, 16)
    words = ours.embeddings["word_embeddings"](ids) + ours.embeddings["position_embeddings"].weight[:4]
    expected = theirs(
        torch.cat([queries, words], 1),
        query_length=queries.shape[1],
        attention_mask=torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), mask], 1),
        encoder_hidden_states=ours.visual_encoder(pictures),
    ).last_hidden_state[:, : queries.shape[1]]
    expected = expected + ours.proj_layer(expected)
    torch.testing.assert_close(ours(pictures, ids, mask), expected, rtol=0, atol=1e-5)


# cv2.Canny(image, 30, 70) of OpenCV 4.14 and 5.0, one hexadecimal number a row
OPENCV = """
12244448 09244044 69cc6846 8654c041 22168008 32000490 1b71eeb1 089b104a
01220088 32180411 cbb0efc6 00044084 020648c8 c633f989 30084608 00020484
80ee0047 6f11fef0 38022080 28042080 805e469f 63a14480 10004484 12204448
"""


def test_canny_is_opencv_s():
    rough = torch.from_numpy(seeded_input("canny", (1, 3, 7, 9)))
    picture = Image.fromarray((rough[0].permute(1, 2, 0) * 255).byte().numpy()).resize(
        (32, 24), Image.Resampling.BILINEAR
    )
    edges = canny(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])[0]
    rows = ("".join(str(int(pixel > 0)) for pixel in row) for row in edges)
    assert [f"{int(row, 2):08x}" for row in rows] == OPENCV.split() and set(edges.unique().tolist()) == {
        0,
        255,
    }


def test_weak_edges_need_a_strong_one():
    """Two grey steps of 15 levels (|dx| = 60), the left one of 25 (|dx| = 100) in its lower half."""
    image = torch.full((1, 3, 20, 30), 65, dtype=torch.uint8)
    image[..., :10, :10], image[..., 10:, :10], image[..., 20:] = 50, 40, 80
    edges = canny(image)[0]
    assert edges[:9, 9:11].any(1).all() and not edges[:, 18:22].any()


def test_edge_map(network):
    content = torch.zeros(1, 3, 64, 64)
    content[..., 32:] = 1
    edges = network.encode_content(content)
    assert edges.shape == content.shape and torch.equal(edges[:, 0], edges[:, 2])
    lit = edges[0, 0].sum(0)
    assert lit[31:33].sum() > 4 * lit[:28].abs().sum() and not edges[..., 40:].any()


def test_older_files_give_the_same(network, files, tmp_path):
    """A pickle of float32 with the buffer that older libraries wrote."""
    old = dict(files)
    for part, prefix in (("qformer", "embeddings."), ("text_encoder", "text_model.embeddings.")):
        old[part] = tmp_path / part
        old[part].mkdir()
        shutil.copy(files[part] / "config.json", old[part])
        state = {
            name: tensor.float() for name, tensor in load_file(files[part] / "model.safetensors").items()
        }
        torch.save(
            {prefix + "position_ids": torch.arange(24)[None], **state}, old[part] / "pytorch_model.bin"
        )
    style = images("style", 1)
    assert torch.equal(model.load(old).encode_style(style), network.encode_style(style))


def damage(case, folder):
    """Spoils the release in `folder` and returns what the message must name."""
    qformer = folder / "qformer/model.safetensors"
    if case == "no ControlNet":
        shutil.rmtree(folder / "controlnet")
        return "controlnet"
    if case == "no weights":
        qformer.unlink()
        return "qformer"
    if case == "truncated":
        qformer.write_bytes(qformer.read_bytes()[:1000])
        return "model.safetensors"
    if case == "pickled objects":
        qformer.unlink()
        (folder / "qformer/pytorch_model.bin").write_bytes(pickle.dumps(pytest.raises, 2))
        return "pytorch_model.bin"
    if case in ("a tensor missing", "another shape"):
        state = load_file(qformer)
        weight = state.pop("proj_layer.dense2.bias")
        save_file(
            state if case == "a tensor missing" else state | {"proj_layer.dense2.bias": weight[:3]}, qformer
        )
        return "proj_layer.dense2.bias"
    if case == "another network":
        shutil.copy(folder / "text_encoder/model.safetensors", qformer)
        return "qformer"
    if case in ("vae", "unet", "controlnet"):
        weights = folder / case / "diffusion_pytorch_model.safetensors"
        state = load_file(weights)
        state.pop(next(name for name in state if name.endswith("bias")))
        save_file(state, weights, {"format": "pt"})
        return case
    if case == "another frequency":
        config = json.loads((folder / "qformer/config.json").read_text())
        config["qformer_config"]["cross_attention_frequency"] = 1
        (folder / "qformer/config.json").write_text(json.dumps(config))
        return "encoder.layer.1.crossattention"
    if case == "vocabulary of six":
        (folder / "vocab.txt").write_text("\n".join(blip_release.WORDS[:6]))
        return "bert-base-uncased"
    if case == "index":
        (folder / "model_index.json").write_text("{")
        return "model_index.json"
    (folder / case).unlink()
    return case.partition("/")[0]


@pytest.mark.parametrize(
    "case",
    [
        "no ControlNet", "no weights", "truncated", "pickled objects", "a tensor missing", "another shape",
        "another network", "another frequency", "vae", "unet", "controlnet", "vocabulary of six", "index",
        "vocab.txt", "qformer/config.json", "scheduler/scheduler_config.json", "unet/config.json",
        "tokenizer/tokenizer.json",
    ],
)  # fmt: skip
def test_wrong_files_get_a_sentence(case, files, tmp_path):
    folder = tmp_path / "release"
    shutil.copytree(files["qformer"].parent, folder)
    named = damage(case, folder)
    with pytest.raises((UserError, FileNotFoundError)) as error:  # a command makes a sentence of both
        model.load({name: folder / name for name in model.FILES})
    assert named in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"solver": "ddim"}, {"steps": 0}])
def test_wrong_options_get_a_sentence(wrong, network):
    with pytest.raises(UserError, match=next(iter(wrong))):
        network.stylise(photos("content", 1), images("style", 1), **wrong)


def test_unnamed_file_gets_a_sentence(files):
    with pytest.raises(UserError, match="vocab"):
        model.load({name: path for name, path in files.items() if name != "vocab.txt"})


@pytest.mark.sd15
def test_one_step_of_blip_at_full_size(tmp_path):
    """`bash scripts/smoke_sd15.sh blip`: the release's sizes, half precision on disk, float32 in memory."""
    network = model.load(blip_release.build(tmp_path, blip_release.REAL, clip_tokenizer()))
    start, size = time.process_time(), 512
    out = network.stylise(
        images("content", 1, size, size), images("style", 1, size, size), subjects="Bears", steps=1
    )
    seconds = time.process_time() - start
    parameters = sum(weight.numel() for weight in network.parameters())
    peak = environment.peak_memory("cpu")
    print(f"blip: {parameters / 1e6:.0f} M parameters, {seconds:.0f} s of CPU, {peak / 1e9:.1f} GB")
    assert network.multiple == 8 and out.shape == (1, 3, size, size) and out.isfinite().all()
    assert sum(weight.numel() for weight in network.unet.parameters()) == 859_520_964  # SD 1.5's
    assert 0.995 < 4 * parameters / RELEASE < 1 and peak < 24e9
