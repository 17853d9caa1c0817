"""Formulas of adversarial prompts, against others: projection, draws, insertion, the gradient by words."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.intervention import NOTHING, Intervention
from diffusion_model_finetuning.core.sd import eps, load_sd
from evaluation import canvas
from machine_unlearning.core import textgrad
from machine_unlearning.seot import intervene, suppress
from machine_unlearning.spm import adapters
from machine_unlearning.spm.intervene import mixing, transport
from tests.machine_unlearning.test_spm import filled

PROMPTS = ["A Cats image in Sketch style.", "A Sea image in Rust style."]


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=9))
@settings(deadline=None)
def test_projection_is_the_nearest_point(row):
    """Its conditions of optimality: one shift for all that stay positive, no smaller one for the others."""
    u = torch.tensor(row, dtype=torch.float64)
    point = textgrad.simplex(u)
    torch.testing.assert_close(point.sum().item(), 1.0)
    shift = (u - point)[point > 0]
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))
    assert point.min() >= 0 and (u[point == 0] <= shift[0] + 1e-9).all()


def test_words_are_drawn_with_their_probabilities():
    u = torch.tensor([[0.2, 0.0, 0.5, 0.3], [0.0, 1.0, 0.0, 0.0]])
    normals = torch.randn(2, 40_000, generator=torch.Generator().manual_seed(0))
    drawn = textgrad.draw_words(u[:, None].expand(-1, normals.shape[1], -1), normals)
    shares = torch.stack([(drawn == word).float().mean(1) for word in range(4)], 1)
    torch.testing.assert_close(shares, u, atol=0.01, rtol=0)
    assert not (drawn[0] == 1).any() and (drawn[1] == 1).all()
    far = torch.tensor([[-40.0, 40.0]])
    assert textgrad.draw_words(u[:, None].expand(-1, 2, -1), far.expand(2, 2)).tolist() == [[0, 3], [1, 1]]


def test_timesteps():
    assert textgrad.timesteps(50) == list(range(10, 1000, 20)) and textgrad.timesteps(1) == [500]


def test_words_are_put_in_at_their_places(sd):
    prompts, words = torch.arange(10).view(2, 5), torch.tensor([[70, 71], [80, 81]])
    assert textgrad.insert(prompts, words, [1, 3]).tolist() == [[0, 70, 71, 1, 2], [5, 6, 7, 80, 81]]
    table = torch.randn(90, 3)
    rows = textgrad.insert(table[prompts], table[words], [1, 3])
    assert torch.equal(rows, table[textgrad.insert(prompts, words, [1, 3])])


def test_ids_and_their_rows_are_the_same_prompt(sd):
    ids = textgrad.insert(sd.tokens(PROMPTS), torch.tensor([[5, 9], [700, 3]]), [1, 1])
    rows = sd.text_encoder.get_input_embeddings().weight[ids]
    assert torch.equal(sd.embed_rows(rows), sd.embed(ids))


def gradient(sd, act=NOTHING, rows=slice(None), kind="l2"):
    draw = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, 2, 4, 8, 8, generator=draw)
    words = torch.randint(len(sd.tokenizer) - 2, (2, 2), generator=draw)
    data = sd.tokens(PROMPTS)[rows], words[rows], [1, 1][rows], x[rows], 300, noise[rows], kind
    return textgrad.gradient_by_words(sd, act, *data), data


@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_gradient_is_that_of_the_loss(sd, kind):
    """By differences along it: a gradient that is not this one would have another slope there."""
    got, (prompts, words, places, x, t, noise, _) = gradient(sd, kind=kind)
    table, ids = sd.text_encoder.get_input_embeddings().weight, textgrad.insert(prompts, words, places)

    def loss(rows):
        with torch.no_grad():
            difference = eps(sd.unet, x, t, sd.embed_rows(rows)) - noise
        return (difference**2 if kind == "l2" else difference.abs()).mean((1, 2, 3)).double()

    step = torch.zeros(*ids.shape, table.shape[1])
    step[:, 1:3] = 0.002 * got / got.norm(dim=(1, 2), keepdim=True)
    slope = (loss(table[ids] + step) - loss(table[ids] - step)) / 2
    torch.testing.assert_close(slope, 0.002 * got.norm(dim=(1, 2)).double(), rtol=0.02, atol=0)


def test_prompts_do_not_see_each_other(sd):
    both, _ = gradient(sd)
    for i in range(2):
        alone, _ = gradient(sd, rows=slice(i, i + 1))
        torch.testing.assert_close(alone[0], both[i], rtol=1e-4, atol=1e-8)
    assert not any(weight.grad is not None for weight in sd.unet.parameters())


def test_spm_is_attacked_with_its_strength_for_what_is_asked(sd):
    """The gamma of the prompt with its found words, as a constant."""
    adapter, asked = filled(sd.unet, 1), []

    def around(ids, text):
        assert not text.requires_grad
        asked.append(transport(sd, ids, text, [sd.tokenizer.decode([5, 9])], "max"))
        return adapters.applied(sd.unet, adapter, mixing(asked[-1], "linear"))

    got, (prompts, words, *_) = gradient(sd, Intervention(around=around))
    ids = textgrad.insert(prompts, words, [1, 1])
    expected = transport(sd, ids, sd.embed(ids), [sd.tokenizer.decode([5, 9])], "max")
    torch.testing.assert_close(asked[0], expected)
    assert not torch.allclose(got, gradient(sd)[0])


def test_seot_is_attacked_through_the_embedding_that_it_edits(sd):
    """Where no target is named, as the base model; elsewhere through SWR's product, a constant."""
    s = OmegaConf.load(intervene.__file__.replace("intervene.py", "config.yaml")).canvas.all
    act = intervene.forgetting(sd, canvas.parse_targets("Sketch"), s)
    got, (prompts, words, places, *_) = gradient(sd, act)
    plain, _ = gradient(sd)
    torch.testing.assert_close(got[1], plain[1])
    assert not torch.allclose(got[0], plain[0])

    ids = textgrad.insert(prompts, words, places)
    text = sd.embed(ids).requires_grad_()
    edited = act.stepless(ids, text)
    prompt = ids[0].tolist()
    count = prompt.index(sd.tokenizer.eos_token_id) + 1
    spots = [prompt.index(token) for token in sd.tokenizer("Sketch style")["input_ids"][1:-1]]
    torch.testing.assert_close(edited[0], suppress.swr(text[0], spots, count, s.alpha))
    assert torch.equal(edited[1], text[1])
    upstream = torch.randn(text.shape, generator=torch.Generator().manual_seed(3))
    by_text = torch.autograd.grad((edited * upstream).sum(), text)[0]
    rows = [*spots, *range(count - 1, text.shape[1])]
    kept = [row for row in range(text.shape[1]) if row not in rows]
    squares, V = torch.linalg.eigh(text[0, rows].detach().double().mT @ text[0, rows].detach().double())
    product = V @ torch.diag((-s.alpha * squares.clamp(min=0).sqrt()).exp()) @ V.mT
    torch.testing.assert_close(by_text[0, kept], upstream[0, kept])
    expected = (upstream[0, rows].double() @ product).float()
    torch.testing.assert_close(by_text[0, rows], expected, rtol=1e-3, atol=1e-5)
