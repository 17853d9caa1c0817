"""SEOT: its formulas in other forms, where prompts name a target, and which pixels it leaves alone."""

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import ddim_grid, denoise_until, eps, load_sd, noise_of, sample
from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.core.record import read_record, requests
from machine_unlearning.core import attention
from machine_unlearning.esd import train as esd
from machine_unlearning.sample import intervention
from machine_unlearning.seot import intervene, train
from machine_unlearning.seot.suppress import ito_loss, ito_terms, swr, word_masks
from machine_unlearning.seot.words import target_tokens

SKETCH, PLAIN = "A Cats image in Sketch style.", "A Sea image in Rust style."
SETTINGS = OmegaConf.load(intervene.__file__.replace("intervene.py", "config.yaml"))
LOOK = {"steps": 5, "guidance": 3.0, "size": 16}


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


@pytest.fixture
def draw(sd):
    """-> draw(target, prompts, **settings): images, with settings laid over those of `canvas`."""

    def make(target, prompts, precision="float32", **settings):
        s = OmegaConf.merge(SETTINGS.canvas.all, {"map_size": 8, "iterations": 2}, settings)
        act = intervene.forgetting(sd, canvas.parse_targets(target), s)
        seeds = list(range(len(prompts)))
        return sample(sd, prompts, seeds, **LOOK, precision=precision, intervention=act)

    return make


def unlearn(tiny_sd, target, out, *more, method=train):
    words = ["--target", target, "--model", str(tiny_sd), "--out", str(out), "--device", "cpu", *more]
    method.main(words)
    return out


def test_swr_is_a_function_of_the_gram_matrix():
    """U sigma exp(-alpha sigma) V' = X exp(-alpha (X'X)^1/2), which needs no singular vectors on the left."""
    text = torch.randn(12, 6, dtype=torch.float64)
    rows = [2, 3, 7, 8, 9, 10, 11]
    squares, V = torch.linalg.eigh(text[rows].mT @ text[rows])
    for alpha in (0.0, 0.3, 1.0):
        new = swr(text, [2, 3], 8, alpha)
        root = V @ torch.diag((-alpha * squares.clamp(min=0).sqrt()).exp()) @ V.mT
        torch.testing.assert_close(new[rows], text[rows] @ root)
        kept = [row for row in range(12) if row not in rows]
        assert torch.equal(new[kept], text[kept])
    torch.testing.assert_close(swr(text, [2, 3], 8, 0.0), text)
    orthogonal = 30 * torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    erased = swr(orthogonal, [2, 3], 8, 1.0)  # all singular values are 30
    assert erased[rows].norm() < 1e-10 and torch.equal(erased[kept], orthogonal[kept])


def test_masks_find_the_peak_of_a_word():
    A = torch.rand(1, 64, 3, dtype=torch.float64) * 0.5
    A[0, 27, 1] = 1.0
    erase = torch.tensor([[False, True, False]])
    assert word_masks(A, erase)[0, :, 1].nonzero().tolist() == [[27]]
    flat = torch.ones(1, 64, 3, dtype=torch.float64)
    assert word_masks(flat, erase).all()
    A[0, 35, 1] = A[0, 35, 2] = 0.9
    A[0, 27, 2] = 1.0  # as word 1, which is to be erased and has the lower threshold
    shown = word_masks(A, erase)[0]
    assert shown[35, 1] and not shown[35, 2]


def test_loss_of_equal_and_of_orthogonal_maps():
    A, S = torch.rand(2, 16, 5, dtype=torch.float64), torch.rand(2, 16, 16, dtype=torch.float64)
    erase, retain = intervene.word_flags([[2], [1, 2]], [5, 4], 5)
    assert erase.tolist() == [[False, False, True, False, False], [False, True, True, False, False]]
    assert retain.tolist() == [[False, True, False, True, False], [False] * 5]
    shown = word_masks(A, erase)
    for term in ito_terms(A, S, shown, A * 3, S * 2, erase, retain):  # a cosine knows no scale
        torch.testing.assert_close(term, torch.zeros(2, dtype=torch.float64))
    half = torch.arange(16).lt(8)[None, :, None].double()
    terms = ito_terms(A * half, S * half, shown, A * (1 - half), S * (1 - half), erase, retain)
    sizes = [(words[:, None] & shown).sum((1, 2)) for words in (retain, erase)]
    expected = [retain.sum(1), erase.sum(1), *sizes]
    for term, count in zip(terms, expected, strict=True):
        torch.testing.assert_close(term, count.double())
    total = expected[0] - 0.5 * expected[1] + expected[2] - 0.5 * expected[3]
    torch.testing.assert_close(ito_loss(terms, (1.0, -0.5, 1.0, -0.5)), total.double())


def test_maps_of_a_pass_cut_short_are_those_of_a_whole_one(sd):
    x, text = torch.randn(2, 4, 8, 8), sd.embed([SKETCH, PLAIN])
    plain = eps(sd.unet, x, 5, text)
    for level in (0, 1):
        places = (f"down_blocks.{level}.", f"up_blocks.{1 - level}.")
        with attention.recorded(sd.unet, lambda name, places=places: name.startswith(places)) as maps:
            eps(sd.unet, x, 5, text)
        A, S = intervene.attention_maps(sd.unet, x, 5, text, level)
        side = 8 >> level
        assert A.shape == (2, side * side, text.shape[1]) and S.shape == (2, side * side, side * side)
        means = [m.mean(1) for name, m in maps.items() if name.endswith("attn2")]
        torch.testing.assert_close(A, (sum(means) / len(means)).double())
        torch.testing.assert_close(S.sum(-1), torch.ones_like(S[..., 0]))
        assert torch.equal(eps(sd.unet, x, 5, text), plain)  # nothing is left behind in the UNet


def test_level_of_the_real_and_the_small_unet(sd):
    assert [intervene.level_of(sd.unet.config, side, 16) for side in (16, 32)] == [0, 1]
    with pytest.raises(UserError, match=r"map_size=16: latents of 8 x 8 have attention maps of side 8, 4"):
        intervene.level_of(sd.unet.config, 8, 16)


def test_gradient_steps_lower_the_loss_row_by_row(sd):
    x, text = torch.randn(2, 4, 8, 8), sd.embed([SKETCH, PLAIN])
    flags = intervene.word_flags([[5, 6], [2]], [9, 9], text.shape[1])
    start = torch.stack([swr(text[0], [5, 6], 9, 1.0), swr(text[1], [2], 9, 1.0)])
    s = SimpleNamespace(iterations=3, lambdas=(1.0, -0.5, 1.0, -0.5))

    def look(text, rows=slice(None)):
        return intervene.attention_maps(sd.unet, x[rows], 5, text, 0)

    with torch.no_grad():
        reference = look(text)
        new = intervene.ito(start, look, reference, *flags, 0.1, s)
        shown = word_masks(reference[0], flags[0])
        before, after = (
            ito_loss(ito_terms(*reference, shown, *look(e), *flags), s.lambdas) for e in (start, new)
        )
        assert (after < before).all()
        one = slice(1, 2)  # a row alone goes the same way
        alone = intervene.ito(
            start[one], lambda e: look(e, one), [m[one] for m in reference], *(f[one] for f in flags), 0.1, s
        )
    torch.testing.assert_close(alone, new[one])
    assert not any(weight.grad is not None for weight in sd.unet.parameters())


@pytest.mark.parametrize(
    "target, prompt, words",
    [
        ("Sketch", SKETCH, "sketch style"),
        ("Sketch", "Sketch style, Cats", "sketch style"),
        ("Sketch", "A Cats image in Artist Sketch style.", ""),
        ("Artist_Sketch", "A Cats image in Artist Sketch style.", "artist sketch style"),
        ("Cats", SKETCH, "cats"),
        ("Cats", "An image of Cats.", "cats"),
        ("Sketch+Cats", SKETCH, "cats sketch style"),
        ("Sketch+Sea", SKETCH, ""),
        ("Sketch,Cats,Rust", SKETCH, "cats sketch style"),
        ("Rust,Sea", SKETCH, ""),
    ],
)
def test_words_of_a_target(sd, target, prompt, words):
    ids = sd.tokenizer(prompt)["input_ids"]
    found = target_tokens(sd.tokenizer, ids, canvas.parse_targets(target), False)
    assert sd.tokenizer.decode([ids[place] for place in found]) == words


def test_words_at_the_port_s_places(sd):
    def fixed(target, prompt):
        ids = sd.tokenizer(prompt)["input_ids"]
        return target_tokens(sd.tokenizer, ids, canvas.parse_targets(target), True)

    assert fixed("Cats", SKETCH) == [2] and fixed("Sketch", SKETCH) == [5, 6]
    assert fixed("Van_Gogh", "A Cats image in Van Gogh style.") == [5, 6, 7]
    assert fixed("Cats", PLAIN) == fixed("Sketch+Sea", SKETCH) == []
    assert fixed("Sketch", "A Cats image. Sketch style") == [5, 6]
    assert fixed("Sketch", "Sketch style") == []  # the prompt ends before


def test_words_beyond_the_embedding(sd):
    prompt = " ".join(["Sea"] * sd.tokenizer.model_max_length) + ", Sketch style"
    ids = sd.tokens([prompt])[0].tolist()
    assert target_tokens(sd.tokenizer, ids, canvas.parse_targets("Sketch"), False) == []


@pytest.mark.parametrize("reference_trajectory", [True, False])
def test_only_rows_that_name_the_target_change(sd, draw, reference_trajectory):
    prompts = [PLAIN, SKETCH, "A Trees image in Artist Sketch style.", SKETCH, ""]
    plain = sample(sd, prompts, list(range(5)), **LOOK)
    images = draw("Sketch", prompts, reference_trajectory=reference_trajectory)
    assert [not np.array_equal(a, b) for a, b in zip(images, plain, strict=True)] == [0, 1, 0, 1, 0]
    assert np.array_equal(images, draw("Sketch", prompts, reference_trajectory=reference_trajectory))
    assert np.array_equal(draw("Winter", prompts), plain)


def test_a_row_does_not_depend_on_the_others_edits(draw):
    """Nor on their number, up to the rounding of another batch size."""
    both = draw("Sketch,Rust", [SKETCH, PLAIN])
    for row, target in enumerate(("Sketch", "Rust")):
        difference = both[row].astype(int) - draw(target, [SKETCH, PLAIN])[row]
        assert np.abs(difference).max() <= 1


def test_no_share_of_the_steps_no_edit(sd, draw):
    prompts = [SKETCH, PLAIN]
    assert np.array_equal(draw("Sketch", prompts, begin=1.0), sample(sd, prompts, [0, 1], **LOOK))


def test_soft_weighting_alone(sd, draw):
    """Without ITO: plain embeddings for the first fifth of the schedule, then those of SWR."""
    text, null = sd.embed([SKETCH]), sd.embed([""])
    edited = swr(text[0], [5, 6], 9, 1.0)[None]
    grid, x = ddim_grid(5), noise_of(0, (4, 8, 8))[None]
    x = denoise_until(sd.unet, x, text, null, 3.0, grid, sd.abar, 4)
    x = denoise_until(sd.unet, x, edited, null, 3.0, grid[:4], sd.abar)
    expected = (sd.decode(x).permute(0, 2, 3, 1) * 255).round().byte().numpy()
    for off in ({"iterations": 0}, {"end": 0.2}, {"lambdas": [0.0, 0.0, 0.0, 0.0]}):
        assert np.array_equal(draw("Sketch", [SKETCH], **off), expected)
    assert not np.array_equal(draw("Sketch", [SKETCH]), expected)


def test_reference_maps_are_of_the_trajectory_asked_for(draw, monkeypatch):
    latents = []
    real = intervene.attention_maps

    def spy(unet, x, t, text, level):
        if not torch.is_grad_enabled():  # the reference; ITO's own passes have gradients
            latents.append(x.clone())
        return real(unet, x, t, text, level)

    monkeypatch.setattr(intervene, "attention_maps", spy)
    for reference_trajectory in (True, False):
        draw("Sketch", [SKETCH], begin=0.0, end=0.4, reference_trajectory=reference_trajectory)
    unedited, edited = latents[:2], latents[2:]
    assert torch.equal(unedited[0], edited[0]) and not torch.equal(unedited[1], edited[1])


def test_half_precision(sd, draw):
    full, half = (draw("Sketch", [SKETCH, PLAIN], precision) for precision in ("float32", "bfloat16"))
    assert np.abs(full.astype(int) - half).mean() < 10
    plain = sample(sd, [SKETCH, PLAIN], [0, 1], **LOOK, precision="bfloat16")
    assert np.array_equal(half[1], plain[1]) and not np.array_equal(half[0], plain[0])


def test_a_run_stores_no_weight_and_is_found_by_the_sampler(tiny_sd, sd, tmp_path):
    run = unlearn(tiny_sd, "Sketch,Rust+Sea", tmp_path / "run", "iterations=1")
    assert load_file(run / "weights.safetensors") == {}
    act, prompts = intervention(sd, run, read_record(run)), [SKETCH, PLAIN, "A Cats image in Rust style."]
    images, plain = (sample(sd, prompts, [0, 1, 2], **LOOK, intervention=what) for what in (act, NOTHING))
    assert [not np.array_equal(a, b) for a, b in zip(images, plain, strict=True)] == [1, 1, 0]
    assert act.touches(sd.tokens(prompts)).tolist() == [True, True, False]


def test_published_settings(tiny_sd, tmp_path):
    run = unlearn(tiny_sd, "Sketch+Cats", tmp_path / "run", "--variant", "published", "map_size=8")
    s = json.loads((run / "record.json").read_text())["settings"]
    changed = {"reference_trajectory": False, "fixed_positions": True, "map_size": 8}
    assert s == SETTINGS.canvas.all | changed


def test_what_sampling_would_refuse_is_refused_before(tiny_sd, tmp_path, capsys):
    """And so are settings that a record cannot have."""
    with pytest.raises(SystemExit) as exit:
        unlearn(tiny_sd, "Sketch", tmp_path / "run", "map_size=7")
    assert exit.value.code == 2 and "map_size=7: latents of 8 x 8" in capsys.readouterr().err
    assert not (tmp_path / "run/record.json").exists()
    run = unlearn(tiny_sd, "Sketch", tmp_path / "run")
    record = json.loads((run / "record.json").read_text())
    for changes, message in (
        ({"settings": {}}, "alpha is missing"),
        ({"settings": record["settings"] | {"end": 2}}, "end=2: expected a number from 0 to 1"),
        ({"target": "../Sketch"}, "no style or object is called '../Sketch'"),
    ):
        (run / "record.json").write_text(json.dumps(record | changes))
        with pytest.raises(UserError, match=rf"record\.json: .*{message}"):
            intervention(load_sd(tiny_sd), run, read_record(run))


def test_goes_on_from_weights_and_adds_up(tiny_sd, tmp_path, capsys):
    quick = ["steps=1", "walk=2", "batch=1", "size=16", "lr=0.05"]
    first = unlearn(tiny_sd, "Winter", tmp_path / "esd", *quick, method=esd)
    second = unlearn(tiny_sd, "Sketch", tmp_path / "second", "--from", str(first))
    third = unlearn(tiny_sd, "Rust,Cats", tmp_path / "third", "--from", str(second))
    records = [json.loads((run / "record.json").read_text()) for run in (second, third)]
    assert requests(records[0]) == [("esd", "Winter"), ("seot", "Sketch")]
    assert requests(records[1]) == [("esd", "Winter"), ("seot", "Sketch"), ("seot", "Rust,Cats")]
    assert [record["from"] for record in records] == [str(first), str(second)]
    sd = load_sd(tiny_sd)  # what other methods were asked is theirs
    prompts = sd.tokens(
        [canvas.prompt(*cell) for cell in product(("Winter", "Sketch", "Rust"), ("Sea", "Cats"))]
    )
    for run, touched in ((second, [0, 0, 1, 1, 0, 0]), (third, [0, 1, 1, 1, 1, 1])):
        assert intervention(sd, run, read_record(run)).touches(prompts).tolist() == list(map(bool, touched))
    trained = load_file(first / "weights.safetensors")
    for run in (second, third):
        stored = load_file(run / "weights.safetensors")
        assert stored.keys() == trained.keys() and all(torch.equal(stored[n], trained[n]) for n in stored)
    unlearn(tiny_sd, "Rust,Cats", third, "--from", str(second))
    assert "already finished" in capsys.readouterr().out
