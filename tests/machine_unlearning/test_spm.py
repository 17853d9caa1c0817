"""SPM's formulas, its adapters, what a run stores, and how it acts while images are sampled."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning.core.sd import ddim_grid, eps, load_sd, sample
from evaluation.core.errors import UserError
from evaluation.core.record import read_record
from machine_unlearning.core.weights import load_run
from machine_unlearning.esd import train as esd
from machine_unlearning.sample import intervention
from machine_unlearning.spm import adapters, intervene, train
from tests import tiny

PROMPTS = ["A Cats image in Sketch style.", "A Sea image in Rust style."]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(unet, seed, rank=2):
    """An adapter with an effect."""
    made = adapters.create(unet, f"concept {seed}", rank, 3.0, generator(seed))
    for i, (_, up) in enumerate(made.factors.values()):
        torch.nn.init.normal_(up, std=0.1, generator=generator(seed * 1000 + i))
    return made


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


@pytest.fixture
def call(sd):
    x, t = torch.randn(2, 4, 8, 8, generator=generator()), torch.tensor([300, 700])
    return x, t, sd.embed(PROMPTS)


# the adapters


def test_layers_and_size_in_sd15():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
    pattern = (
        r"(down_blocks\.[0-2]\.attentions\.[01]|mid_block\.attentions\.0|up_blocks\.[1-3]\.attentions\.[0-2])\."
        r"(proj_in|proj_out|transformer_blocks\.0\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)))"
    )
    found = adapters.layers(unet)
    assert len(found) == 192 and all(re.fullmatch(pattern, name) for name in found)
    assert sum(sum(layer.weight.shape[:2]) for layer in found.values()) == 423_936


def test_a_new_adapter_has_no_effect(sd, call):
    new = adapters.create(sd.unet, "Sketch", 1, 1.0, generator())
    with torch.no_grad(), adapters.applied(sd.unet, new, torch.ones(1, 1, 1)):
        inside = eps(sd.unet, *call)
    assert torch.equal(inside, eps(sd.unet, *call))
    for down, up in new.factors.values():
        bound = down[0].numel() ** -0.5
        assert not up.any() and 0.5 * bound < down.abs().max() <= bound


@torch.no_grad()
def test_nothing_is_left_behind(sd, call):
    before = eps(sd.unet, *call)
    with pytest.raises(KeyError), adapters.applied(sd.unet, filled(sd.unet, 1), torch.ones(1, 1, 1)):
        assert not torch.equal(eps(sd.unet, *call), before)
        raise KeyError
    assert torch.equal(eps(sd.unet, *call), before)
    assert not any(module._forward_hooks for module in sd.unet.modules())


@torch.no_grad()
@pytest.mark.parametrize("scaling", ("linear", "product"))
def test_every_row_is_scaled_by_its_own_gamma(tiny_sd, sd, call, scaling):
    """And as if its adapters were merged into the weights; both rows of a guidance pair alike."""
    both = adapters.compose([filled(sd.unet, 1), filled(sd.unet, 2)])
    mix = intervene.mixing(torch.tensor([[1.0, 0.5], [0.2, 0.0]]), scaling)
    with adapters.applied(sd.unet, both, mix):
        rows = eps(sd.unet, *call)
        x, t, text = (torch.cat([part, part]) for part in call)
        pair = eps(sd.unet, x, t, text)
    torch.testing.assert_close(pair, torch.cat([rows, rows]), rtol=1e-4, atol=1e-5)
    for i in range(2):
        edited = load_sd(tiny_sd).unet
        missing = edited.load_state_dict(adapters.merged(sd.unet, both, mix[i]), strict=False)
        assert not missing.unexpected_keys
        alone = eps(edited, *(part[i : i + 1] for part in call))
        torch.testing.assert_close(rows[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_mixing():
    gamma = torch.tensor([[0.5, 1.0], [0.0, 0.25]])
    assert torch.equal(intervene.mixing(gamma, "linear")[0], torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    assert torch.equal(intervene.mixing(gamma, "product")[0], torch.tensor([[0.25, 0.5], [0.5, 1.0]]))
    one = gamma[:, :1]
    assert torch.equal(intervene.mixing(one, "product"), intervene.mixing(one**2, "linear"))


# the formulas


def test_losses():
    e, null, concept = torch.randn(3, 2, 4, 3, 3, dtype=torch.float64).unbind()
    torch.testing.assert_close(train.erase_loss(e, null, concept, 0.0), (e - null).pow(2).mean())
    torch.testing.assert_close(train.erase_loss(2 * null - concept, null, concept, 1.0).item(), 0.0)
    anchors, frozen = torch.randn(2, 4, 2, 4, 3, 3).unbind()
    even, uneven = torch.full((4,), 0.25), torch.tensor([1.0, 0, 0, 0])
    torch.testing.assert_close(train.anchor_loss(anchors, frozen, even), (anchors - frozen).pow(2).mean())
    expected = (anchors - frozen)[0].pow(2).mean()
    torch.testing.assert_close(train.anchor_loss(anchors, frozen, uneven), expected)


def test_anchors():
    concept = torch.randn(7, 5, generator=generator(3))
    anchors = train.draw_anchors(500, concept, generator())
    ratio = anchors.flatten(1).norm(dim=1) / concept.norm()
    assert 0.8 <= ratio.min() < 0.82 and 1.18 < ratio.max() <= 1.2
    # in one dimension the cosine is 1 or -1, and the first is never kept
    assert (train.draw_anchors(20, torch.ones(1, 1), generator()) < 0).all()


def test_times():
    k = torch.arange(1, 30)
    grid, t = train.times(k, 30, "exact")
    assert grid == ddim_grid(30)
    assert t.tolist() == [grid[30 - i - 1] for i in k.tolist()]  # where denoise_until stops: entry 30 - k
    grid, t = train.times(k, 30, "shifted")
    assert grid[-3:] == [891, 924, 957]
    level = torch.tensor(grid)[30 - k - 1]
    assert torch.equal(t - level, 42 - k // 3)


def test_rate():
    def rate(step):
        return train.rate(step, 3000, 500, 3)

    assert [rate(step) for step in (0, 250, 500)] == [0, 0.5, 1]
    assert rate(500 + 2500 // 6) == pytest.approx(0.5, abs=2e-3)  # in the middle of the first cosine
    assert rate(1333) == pytest.approx(0, abs=1e-5) and rate(1334) == pytest.approx(1, abs=1e-5)
    assert rate(2999) < 1e-5
    assert train.rate(0, 10, 0, 1) == 1


def test_sides(sd):
    class Settings:
        size, batch, sides = 16, 3, (0.5, 0.625, 0.75, 0.875)

    source = generator()
    shapes = {tuple(train.draw_noise(sd, Settings, source).shape) for _ in range(200)}
    assert shapes == {(3, 4, height, width) for height in range(4, 8) for width in range(4, 8)}


def test_facilitated_transport(sd):
    def transport(prompts, erased, measure):
        return intervene.transport(sd, sd.tokens(prompts), sd.embed(prompts), erased, measure)

    tokens = transport(PROMPTS, ["Sketch", "Warm Love", "Cats Sketch"], "tokens")
    assert torch.equal(tokens, torch.tensor([[1, 0, 1], [0, 0, 0]]))
    mixed = transport(["A Cats image in Warm Smear style."], ["Warm Love", "Cats Sketch"], "tokens")
    assert torch.equal(mixed, torch.full((1, 2), 0.5))
    cosine = transport([*PROMPTS, "Sketch"], ["Sketch"], "cosine")
    assert cosine[2] == pytest.approx(1, abs=1e-6) and cosine[:2].max() < 1
    largest = transport(PROMPTS, ["Sketch"], "max")
    torch.testing.assert_close(largest, torch.tensor([[1.0], [cosine[1].item()]]))


# runs


def unlearn(model, out, target="Sketch", *more):
    texts = (
        f"--target {target} --model {model} --out {out} --device cpu steps=3 warmup=1 walk=3 size=16 lr=0.05"
    )
    train.main([*texts.split(), *more])
    return out


@pytest.fixture(scope="module")
def sketch(tiny_sd, tmp_path_factory):
    return unlearn(tiny_sd, tmp_path_factory.mktemp("spm") / "Sketch")


def about(run):
    with safe_open(run / adapters.FILE, "pt") as file:
        return json.loads(file.metadata()["spm"])


def test_a_run_leaves_adapters_and_no_weights(tiny_sd, sd, sketch):
    assert load_file(sketch / "weights.safetensors") == {}
    assert not tiny.changed(tiny.weights_of(tiny_sd), tiny.weights_of(tiny_sd, sketch))
    assert about(sketch) == {"prompts": ["Sketch"], "rank": 1, "alpha": 1.0}
    tensors = load_file(sketch / adapters.FILE)
    assert len(tensors) == 3 * len(adapters.layers(sd.unet))
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{name}.lora_down.weight"].shape == (1, 16) and tensors[f"{name}.alpha"] == 1
    assert all(up.any() for key, up in tensors.items() if "lora_up" in key)
    stored = sum(path.stat().st_size for path in sketch.glob("*.safetensors"))
    assert json.loads((sketch / "record.json").read_text())["stored_bytes"] == stored


def test_same_seed_same_bytes(tiny_sd, sketch, tmp_path):
    def content(run):
        return (run / adapters.FILE).read_bytes()

    assert content(unlearn(tiny_sd, tmp_path / "again")) == content(sketch)
    assert content(unlearn(tiny_sd, tmp_path / "other", "Sketch", "--seed", "1")) != content(sketch)


def test_the_adapter_learns_to_erase(tiny_sd, tmp_path):
    run = unlearn(tiny_sd, tmp_path / "run", "Sketch", "steps=30", "lamb=0.0", "lr=0.02")
    erase = [json.loads(line)["erase"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(erase[-5:]) < 0.5 * sum(erase[:5])


@pytest.mark.parametrize(
    "settings", [["--variant", "published"], ["--variant", "canvas", "rank=2", "batch=2"]]
)
def test_other_variants(tiny_sd, tmp_path, settings):
    run = unlearn(tiny_sd, tmp_path / "run", "Warm_Love", *settings)
    assert about(run)["prompts"] == ["Warm_Love" if "published" in settings else "Warm Love"]


def test_several_targets_and_a_later_run_stand_side_by_side(tiny_sd, sd, sketch, tmp_path):
    both = adapters.load(unlearn(tiny_sd, tmp_path / "both", "Rust,Mosaic"), sd.unet)
    assert both.prompts == ["Rust", "Mosaic"]
    run = unlearn(tiny_sd, tmp_path / "third", "Winter", "--from", str(tmp_path / "both"))
    third = adapters.load(run, sd.unet)
    assert third.prompts == ["Rust", "Mosaic", "Winter"]
    for name, (down, up) in third.factors.items():  # what was there is carried over bit by bit
        assert torch.equal(down[:2], both.factors[name][0]) and torch.equal(up[:, :2], both.factors[name][1])
        assert not torch.equal(down[0], down[1]) and up.any(dim=0).all()
    alpha = load_file(run / adapters.FILE)[f"{adapters.key(name)}.alpha"]
    assert alpha / len(down) == 1  # so that LoRA tools see each adapter at its own strength
    alone = adapters.load(unlearn(tiny_sd, tmp_path / "alone", "Winter"), sd.unet)
    for name, (down, up) in alone.factors.items():  # earlier adapters are off while a new one is trained
        assert torch.equal(down, third.factors[name][0][2:]) and torch.equal(
            up, third.factors[name][1][:, 2:]
        )


def test_on_top_of_a_weight_method(tiny_sd, sketch, tmp_path):
    texts = f"--target Rust --model {tiny_sd} --device cpu steps=1 walk=2 batch=1 size=16 lr=0.05"
    esd.main([*texts.split(), "--out", str(tmp_path / "esd")])
    run = unlearn(tiny_sd, tmp_path / "spm", "Sketch", "--from", str(tmp_path / "esd"))
    kept, earlier = (load_file(folder / "weights.safetensors") for folder in (run, tmp_path / "esd"))
    assert kept.keys() == earlier.keys() and all(torch.equal(kept[name], earlier[name]) for name in kept)
    assert (run / adapters.FILE).read_bytes() != (sketch / adapters.FILE).read_bytes()


@pytest.mark.parametrize(
    "target, more, message",
    [
        ("Sketch", "--from RUN", "--target Sketch: 'Sketch' would have two adapters"),
        ("Rust,Rust", "", "'Rust' would have two adapters"),
        ("Rust", "--from RUN rank=2", "its adapters need the settings rank=1 alpha=1.0"),
        ("Rust", "scaling=quadratic", "scaling=quadratic: no such choice; "),
        ("Rust", "gamma=token", "gamma=token: no such choice; did you mean tokens?"),
    ],
)
def test_refusals(tiny_sd, sketch, tmp_path, capsys, target, more, message):
    with pytest.raises(SystemExit) as exit:
        unlearn(tiny_sd, tmp_path / "run", target, *more.replace("RUN", str(sketch)).split())
    assert exit.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run/record.json").exists()


def test_damaged_or_missing_adapters(sd, sketch, tmp_path):
    run = shutil.copytree(sketch, tmp_path / "run")
    path = run / adapters.FILE
    whole, tensors, other = path.read_bytes(), load_file(path), (run / "weights.safetensors").read_bytes()
    name = min(name for name in tensors if name.endswith("up.weight"))
    about = {"spm": json.dumps({"prompts": ["Sketch"], "rank": 1, "alpha": 1.0})}

    def file(tensors, about):
        save_file(tensors, path, about)
        return path.read_bytes()

    for content, message in (
        (whole[:100], "damaged"),
        (other, "not adapters of this model"),
        (file(tensors, None), "its metadata says nothing"),
        (file(tensors, {"spm": "[]"}), "no JSON object"),
        (file(tensors | {name: tensors[name][:1].clone()}, about), f"size of {name.partition('.')[0]}"),
        (file(tensors | {name: tensors[name] * torch.nan}, about), f"tensor {name} holds NaN"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"adapters\.safetensors: .*{message}"):
            adapters.load(run, sd.unet)
    path.unlink()
    with pytest.raises(UserError, match=r"adapters\.safetensors: no such file"):
        adapters.load(run, sd.unet)


# sampling


def images(model, run, prompts=PROMPTS, guidance=5.0):
    sd = load_sd(model)
    load_run(sd, run)
    act = intervention(sd, run, read_record(run))
    return sample(sd, prompts, [0, 1], 3, guidance, 16, intervention=act).astype(int)


def test_prompts_of_other_concepts_are_left_alone(tiny_sd, sd, sketch):
    """By the shared tokens, which the miniature goes by: same pixels as the base model's, up to rounding."""
    base = sample(sd, PROMPTS, [0, 1], 3, 5.0, 16).astype(int)
    edited = images(tiny_sd, sketch)
    assert np.abs(edited[0] - base[0]).max() > 1 >= np.abs(edited[1] - base[1]).max()
    turned = images(tiny_sd, sketch, [PROMPTS[1], PROMPTS[1]])
    assert np.abs(turned - sample(sd, [PROMPTS[1]] * 2, [0, 1], 3, 5.0, 16).astype(int)).max() <= 1


def test_guidance_and_negative_prompt_of_the_official_code(tiny_sd, tmp_path):
    run = unlearn(tiny_sd, tmp_path / "run", "Sketch", "--variant", "published")
    assert np.array_equal(images(tiny_sd, run, guidance=1.5), images(tiny_sd, run, guidance=9.0))
    without = unlearn(tiny_sd, tmp_path / "without", "Sketch", "--variant", "published", "negative_prompt=''")
    assert not np.array_equal(images(tiny_sd, without), images(tiny_sd, run))
    own = unlearn(tiny_sd, tmp_path / "own", "Sketch")
    assert not np.array_equal(images(tiny_sd, own, guidance=1.5), images(tiny_sd, own, guidance=9.0))
