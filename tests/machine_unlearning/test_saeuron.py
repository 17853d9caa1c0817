"""SAeUron: what is drawn, trained, looked up and stored once, and what its hook does and leaves alone."""

import json
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from diffusion_model_finetuning.core.sd import eps, load_sd, sample
from evaluation import canvas
from evaluation.core.checkpoint import Checkpoint
from evaluation.core.errors import UserError
from evaluation.core.record import read_record
from machine_unlearning.core import embeddings
from machine_unlearning.esd import train as esd
from machine_unlearning.saeuron import activations, edits, plan, prepare, sae, settings, train
from machine_unlearning.saeuron.activations import Patches
from machine_unlearning.saeuron.plan import Plan, Step
from machine_unlearning.sample import intervention

PROMPTS = ["A Cats image in Sketch style.", "A Sea image in Rust style.", "A Trees image in Photo style."]
SMALL = "images=3 walk=2 epochs=1 latents=64 k=3 patches=32 lookup_walk=2 features=6 gamma=-50".split()
LOOK = {"steps": 2, "guidance": 3.0, "size": 16}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "CACHE", tmp_path_factory.mktemp("cache"))
        yield embeddings.CACHE


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


def words_for(model, target, *more):
    return ["--target", target, "--model", str(model), "--device", "cpu", *SMALL, *more]


@pytest.fixture(scope="module")
def unlearn(tiny_sd, tmp_path_factory):
    """-> unlearn(target, *more): the folder of a run."""

    def make(target, *more):
        out = tmp_path_factory.mktemp("run") / "run"
        train.main([*words_for(tiny_sd, target, *more), "--out", str(out)])
        return out

    return make


@pytest.fixture(scope="module")
def sketch(unlearn):
    return unlearn("Sketch")


def draw(sd, run=None, prompts=PROMPTS, seeds=None, **look):
    act = {"intervention": intervention(sd, run, read_record(run))} if run else {}
    return sample(sd, prompts, seeds or list(range(len(prompts))), **(LOOK | look), **act).astype(int)


def test_blocks_are_those_of_the_network(sd):
    known, seen = settings.sites(sd.unet.config), {}
    blocks = {name: block for name, block in sd.unet.named_modules() if isinstance(block, Transformer2DModel)}
    handles = [
        block.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o[0].shape[1:]}))
        for name, block in blocks.items()
    ]
    eps(sd.unet, torch.zeros(1, 4, 8, 8), 1, sd.embed([""]))
    for handle in handles:
        handle.remove()
    assert known == {name: (m, side) for name, (m, side, _) in seen.items()}
    kinds = ["CrossAttn"] * 3 + ["Plain"]
    sd15 = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "sample_size": 64}
    sd15 = settings.sites(sd15 | {"down_block_types": kinds, "up_block_types": kinds[::-1]})
    assert len(sd15) == 16 and sd15["up_blocks.1.attentions.2"] == (1280, 16)


def test_activations_are_of_the_conditional_half(sd):
    seeds = [("a", 1), ("a", 2)]
    for guidance in (1, 4.0):
        maps = list(activations.walk(sd, PROMPTS[:2], seeds, "mid_block.attentions.0", 3, guidance))
        assert [x.shape for x in maps] == [(2, 16, 32)] * 3
        with activations.watched(sd.unet, "mid_block.attentions.0") as seen:
            eps(sd.unet, activations.starting_noise(sd, seeds), 667, sd.embed(PROMPTS[:2]))
        torch.testing.assert_close(maps[0], seen[0].flatten(2).mT)  # before guidance has moved anything
    assert not sd.unet.mid_block.attentions[0]._forward_hooks


@pytest.fixture
def numbered(tmp_path):
    """Files whose 5 images of 3 steps of 4 patches hold their own numbers."""
    numbers = np.arange(60).reshape(5, 3, 4, 1).astype(np.float16)
    for start in (0, 2, 4):
        np.save(tmp_path / f"{start}.npy", numbers[start : start + 2])
    return [tmp_path / f"{start}.npy" for start in (0, 2, 4)]


@pytest.mark.parametrize("buffer", [1000, 16])
def test_patches_are_mixed_and_come_once_an_epoch(numbered, monkeypatch, buffer):
    monkeypatch.setattr(activations, "BUFFER", buffer)
    patches = Patches(numbered, 5, 2, seed=3)
    batches = [batch.flatten().tolist() for batch in patches.batches(0, "cpu")]
    assert len(batches) == patches.steps
    first = [number for batch in batches[: len(batches) // 2] for number in batch]
    assert len(set(first)) == len(first) >= 45 and first != sorted(first)
    assert batches[0] != batches[len(batches) // 2]
    for start in range(patches.steps + 1):
        assert [batch.flatten().tolist() for batch in patches.batches(start, "cpu")] == batches[start:]
    assert [Patches(numbered, 4096, 2, 3).batch, Patches(numbered, 4096, 2, 3).steps] == [60, 2]


def test_training_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    s = SimpleNamespace(lr=0.01, alpha=0.1, aux="correct", dead_after=20)
    batches = torch.randn(6, 10, 8)

    def trained(state, stop=6):
        network = sae.SAE(8, 16, 2).start(torch.Generator().manual_seed(0))
        rows = sae.train(network, lambda start: iter(batches[start:]), 6, s, state, "key")
        return network, [row["loss"].item() for row, _ in zip(rows, range(stop))]

    whole, losses = trained(tmp_path / "a.pt")
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    trained(tmp_path / "b.pt", 4)
    resumed, rest = trained(tmp_path / "b.pt")
    assert rest == losses[-len(rest) :] and len(rest) < 4
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_training_learns_a_dictionary(tmp_path):
    """Of patches that are sums of a few directions; the latents that nothing keeps come back to life."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(24, 16, generator=generator)
    z = torch.rand(60, 64, 24, generator=generator).clamp(min=0.9) - 0.9
    s = SimpleNamespace(lr=0.01, alpha=1 / 32, aux="correct", dead_after=300)
    network = sae.SAE(16, 48, 3).start(generator)
    rows = list(sae.train(network, lambda start: iter(10 * z @ directions), 60, s, tmp_path / "a.pt", "key"))
    fvu, dead = ([float(row[name]) for row in rows] for name in ("fvu", "dead"))
    assert fvu[-1] < 0.5 * fvu[0] and max(dead) > dead[-1]


def test_no_latent_above_average_nothing_changes():
    network = sae.SAE(8, 16, 4).start(torch.Generator().manual_seed(1)).requires_grad_(False)
    x = torch.randn(2, 5, 8)
    none = Step(torch.tensor([3, 4]), torch.tensor([-9.0, -9.0]), torch.tensor([1e9, 1e9]))
    assert torch.equal(edits.scaled(network, x, none, "correct"), x)
    made = network.decode(network.encode(x.flatten(0, 1))).view_as(x)
    torch.testing.assert_close(edits.scaled(network, x, none, "none"), made)
    torch.testing.assert_close(edits.scaled(network, x, none, "published"), x + 2 * (made - x))
    assert not edits.flagged(network, x, none).any()
    draws = torch.rand(2, 5)
    assert torch.equal(edits.replaced(x, torch.ones(2, 5, dtype=torch.bool), draws), x)  # nothing to take
    flags = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 1, 1, 1]]).bool()
    new = edits.replaced(x, flags, draws)
    assert torch.equal(new[~flags], x[~flags]) and all(
        any(torch.equal(a, b) for b in x[0, [1, 2, 4]]) for a in new[0]
    )
    assert torch.equal(new[1], x[1, :1].expand(5, -1))


def test_of_a_latent_of_two_targets_the_later_s_scale_holds():
    plans = [
        Plan(
            name,
            torch.tensor([[1, 5]]),
            torch.full((1, 2), scale),
            torch.zeros(1, 2),
            torch.tensor([1]),
            "",
            "",
            "",
        )
        for name, scale in (("A", -1.0), ("B", -2.0))
    ]
    plans[0].features[0, 0] = 7
    (step,) = plan.joined(plans)
    assert dict(zip(step.features.tolist(), step.scale.tolist())) == {7: -1.0, 1: -2.0, 5: -2.0}


@pytest.mark.parametrize("more", [[], ["action=replace"], ["residual=published"], ["halves=conditional"]])
def test_pixels_do_not_depend_on_the_batch(sd, unlearn, more):
    run, plain = unlearn("Sketch,Rust", *more), draw(sd)
    images = draw(sd, run)
    assert np.abs(images - plain).max() > 1
    for i, prompt in enumerate(PROMPTS):
        assert np.abs(draw(sd, run, [prompt], [i])[0] - images[i]).max() <= 1
    assert np.array_equal(draw(sd), plain)  # the hooks are gone


def test_with_no_latents_the_image_is_the_model_s(sd, unlearn):
    assert np.array_equal(draw(sd, unlearn("Sketch", "features=0")), draw(sd))
    assert not np.array_equal(draw(sd, unlearn("Sketch", "features=0", "residual=none")), draw(sd))


def test_the_timestep_is_the_call_s(sd, sketch):
    """Between those of the plan it is the nearest; gradients pass; `halves` knows the empty prompt's rows."""
    act, part = intervention(sd, sketch, read_record(sketch)), plan.load(sketch)[0]
    assert part.timesteps.tolist() == [501, 1]
    ids, text, x = sd.tokens(PROMPTS), sd.embed(PROMPTS).requires_grad_(), torch.randn(3, 4, 8, 8)
    wanted, seen = [], []
    for t in (600, torch.tensor(300), torch.full((3,), 240)):
        with act.around(ids, text), activations.watched(sd.unet, "mid_block.attentions.0") as now:
            eps(sd.unet, x, t, text).sum().backward()
        seen.append(now[0].detach())
        with torch.no_grad(), activations.watched(sd.unet, "mid_block.attentions.0") as now:
            eps(sd.unet, x, t, text)
        step = plan.joined([part])[int(len(wanted) == 2)]
        network = sae.load(embeddings.CACHE / part.sae)
        wanted.append(edits.scaled(network, now[0].flatten(2).mT, step, "correct").mT.reshape(now[0].shape))
    assert text.grad.isfinite().all() and text.grad.abs().max() > 0
    for got, expected in zip(seen, wanted):
        torch.testing.assert_close(got, expected)


def test_the_empty_prompt_s_half_is_left_alone(sd, unlearn):
    runs = [unlearn("Sketch", f"halves={halves}") for halves in ("both", "conditional")]
    both, half = (intervention(sd, run, read_record(run)) for run in runs)
    ids, x = sd.tokens(PROMPTS), torch.randn(6, 4, 8, 8)
    text, seen = sd.embed([""] * 3 + PROMPTS), []
    for act in (both, half):
        with act.around(ids, text), activations.watched(sd.unet, "mid_block.attentions.0") as now:
            eps(sd.unet, x, 501, text)
        seen.append(now[0])
    with activations.watched(sd.unet, "mid_block.attentions.0") as now:
        eps(sd.unet, x, 501, text)
    assert torch.equal(seen[1][:3], now[0][:3]) and not torch.equal(seen[0][:3], now[0][:3])
    assert torch.equal(seen[1][3:], seen[0][3:])


def test_in_turn_is_at_once(sd, unlearn, sketch, tiny_sd, tmp_path, capsys):
    turn, once = unlearn("Rust", "--from", str(sketch)), unlearn("Sketch,Rust")
    assert [p.target for p in plan.load(turn)] == ["Sketch", "Rust"]
    assert (turn / plan.FILE).read_bytes() == (once / plan.FILE).read_bytes()
    assert np.array_equal(draw(sd, turn), draw(sd, once))
    other = unlearn("Cats", "--from", str(sketch), "block=up_blocks.1.attentions.0")  # two hooks
    assert {p.block for p in plan.load(other)} == {"mid_block.attentions.0", "up_blocks.1.attentions.0"}
    assert not np.array_equal(draw(sd, other), draw(sd, sketch))
    with pytest.raises(SystemExit):
        unlearn("Rust", "--from", str(sketch), "lookup_walk=3")
    assert "give lookup_walk=2, as that run has" in capsys.readouterr().err
    quick = ["--target", "Rust", "--model", str(tiny_sd), "--device", "cpu", "--out", str(tmp_path / "esd")]
    esd.main([*quick, "steps=1", "walk=2", "batch=1"])
    after = unlearn("Sketch", "--from", str(tmp_path / "esd"))  # the SAE is that model's
    assert plan.load(after)[0].sha256 != plan.load(sketch)[0].sha256


def test_a_missing_sae_is_made_again_by_the_command_named(sd, unlearn, sketch, cache, tmp_path):
    part, before = plan.load(sketch)[0], draw(sd, sketch)
    shutil.move(cache / part.sae, tmp_path / "kept")
    with pytest.raises(UserError, match=r"its SAE is not in .*; make it again: python -m") as error:
        intervention(sd, sketch, read_record(sketch))
    words = shlex.split(str(error.value).partition("again: ")[2])
    assert words[:3] == ["python", "-m", "machine_unlearning.saeuron.prepare"]
    prepare.main([*words[3:], "--device", "cpu"])
    assert np.array_equal(draw(sd, sketch), before)
    sizes = json.loads((cache / part.sae / sae.SIZES).read_text())
    assert sizes.keys() >= {"d_in", "k", "fvu", "images", "steps"} and sizes["k"] == 3
    network = sae.load(tmp_path / "kept")
    network.b_dec += 1
    sae.save(cache / part.sae, network)
    with pytest.raises(
        UserError, match="holds another SAE than the run's; put that one there, or remove the run"
    ):
        intervention(sd, sketch, read_record(sketch))
    shutil.rmtree(cache / part.sae)
    shutil.move(tmp_path / "kept", cache / part.sae)
    released = unlearn("Sketch", f"sae={cache / part.sae}")  # one like the authors' files
    (again,) = plan.load(released)
    assert torch.equal(again.features, part.features) and again.sae == str(cache / part.sae)
    assert np.array_equal(draw(sd, released), before)


def test_another_number_of_steps_is_refused(sd, sketch):
    with pytest.raises(UserError, match=r"looked up at 2 steps, images are drawn with 5; .* lookup_walk=5"):
        draw(sd, sketch, steps=5)


def test_a_damaged_plan_is_told(sd, sketch, tmp_path):
    run = shutil.copytree(sketch, tmp_path / "run")
    parts = plan.load(run)
    plan.save(run, [parts[0]._replace(features=parts[0].features + 64)])
    with pytest.raises(UserError, match="names latents that its SAE has not"):
        intervention(sd, run, read_record(run))
    plan.save(run, [parts[0]._replace(scale=parts[0].scale[:1])])
    with pytest.raises(UserError, match="not a plan of SAeUron"):
        plan.load(run)
    (run / plan.FILE).unlink()
    with pytest.raises(UserError, match="no such file"):
        plan.load(run)


@pytest.mark.parametrize(
    "word, message",
    [
        ("block=mid_block.attention.0", "the UNet has no such block; did you mean mid_block.attentions.0"),
        ("k=65", "k=65: expected no more than latents=64"),
        ("features=65", "features=65: expected no more than latents=64"),
        ("sae=/nowhere", "sae=/nowhere: no file cfg.json there"),
        ("tuned=Sketch 2", "tuned=Sketch 2: expected a target, a number of latents and gamma"),
        ("tuned=Sketch 2 nan", "tuned=Sketch 2 nan: expected a target, a number of latents and gamma"),
        ("tuned=Sketch -2 1", "tuned=Sketch -2 1: expected a target, a number of latents and gamma"),
        ("tuned=Skech 2 -1", "tuned Skech: no style or object is called 'Skech'; did you mean Sketch"),
    ],
)
def test_settings_that_fit_nothing(tiny_sd, word, message, tmp_path, capsys):
    for parse in (train.parse, prepare.parse):
        out = ["--out", str(tmp_path / "run")] if parse is train.parse else []
        with pytest.raises(UserError, match=message):
            parse([*words_for(tiny_sd, "Sketch", word), *out])


def test_the_published_list_goes_before_the_settings(tiny_sd):
    words = ["--target", "Cats", "--model", str(tiny_sd), "--out", "run", "--variant", "published"]
    s = train.parse([*words, "block=mid_block.attentions.0"]).settings
    targets = canvas.parse_targets("Cats,Sea,Sketch")
    assert [settings.strength(s, target) for target in targets] == [(1, -30.0), (2, -5.0), (1, -1.0)]


def test_a_full_disk_is_told_before_anything_is_drawn(tiny_sd, monkeypatch, capsys):
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(activations, "walk", None)
    with pytest.raises(SystemExit) as stop:
        prepare.main(words_for(tiny_sd, "Sketch", "images=4"))
    assert stop.value.code == 2
    assert (
        "the activations take 0.0 GB more and 0.0 GB are free; draw fewer images" in capsys.readouterr().err
    )


@pytest.mark.parametrize("content", [b"", b"half", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_a_damaged_file_of_the_cache_is_made_again(tmp_path, monkeypatch, content):
    monkeypatch.setattr(activations.embeddings, "CACHE", tmp_path)
    made = ("maps", {"a": 1}, 3, 2, 8, lambda rows: np.array(rows, float))
    files = activations.by_blocks(*made)
    whole = [path.read_bytes() for path in files]
    files[1].write_bytes(whole[1][:-1] if content is None else content)
    assert [path.read_bytes() for path in activations.by_blocks(*made)] == whole
