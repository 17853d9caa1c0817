"""Inversion: the token is learned on the model as it samples, and leaves that as it was."""

import pytest
import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.intervention import NOTHING, Intervention
from diffusion_model_finetuning.core.sd import sample
from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.metrics.robustness import Asked
from evaluation.probes import Inversion
from machine_unlearning.core import inversion
from tests.machine_unlearning.test_evaluate_runs import protocol_file

SKETCH, CATS = canvas.parse_targets("Sketch,Cats")


@pytest.fixture
def probe(tmp_path, own_cache):
    start = {"style": "image", "object": "style"}
    return Inversion("small", protocol_file(tmp_path), (188,), start, 1, 6, 2, 0.05)


def test_the_token_stands_where_the_target_did(probe):
    assert inversion.wording(probe.world, SKETCH, "Sketch", "Cats") == "A Cats image in <inverted> style."
    assert inversion.wording(probe.world, CATS, "Sketch", "Cats") == "A <inverted> image in Sketch style."


def test_its_entry_is_there_within_alone(sd):
    ids, number = inversion.token_ids(sd, ["A <inverted> image."])
    table = sd.text_encoder.get_input_embeddings().weight
    assert (ids == number).sum() == 1 and number not in sd.tokens(["A Cats image in Sketch style."])
    word = sd.tokenizer("Cats", add_special_tokens=False)["input_ids"]
    assert len(word) == 1
    with inversion.spelled(sd, number, table[word[0]]):
        assert torch.equal(sd.embed(ids), sd.embed(["A Cats image."]))
    assert sd.text_encoder.get_input_embeddings().weight is table


def test_it_learns_by_hand(sd, probe):
    """The first step of Adam moves every entry by the rate, against the sign of the gradient."""
    one_step = Inversion(probe.name, probe.answers, probe.seeds, probe.start, 1, 1, 2, 0.05)
    word = sd.tokenizer("style", add_special_tokens=False)["input_ids"]
    start = sd.text_encoder.get_input_embeddings().weight[word].mean(0)
    seen = {}

    def text(ids, plain):  # a method's: what it gives is what the loss is of
        seen["prompts"] = sd.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return 0.5 * plain

    moved = inversion.learned(sd, Intervention(text=text), one_step, CATS, "mini") - start
    assert torch.allclose(moved.abs(), torch.full_like(moved, 0.05), atol=1e-5)
    assert len(seen["prompts"]) == 2 and all("cats" not in prompt.lower() for prompt in seen["prompts"])
    other = inversion.learned(sd, NOTHING, one_step, CATS, "mini") - start
    assert not torch.equal(moved.sign(), other.sign())
    assert torch.equal(other, inversion.learned(sd, NOTHING, one_step, CATS, "mini") - start)


def test_the_loss_falls(sd, probe):
    from evaluation.data.images import CanvasImages

    images = CanvasImages("mini", [("Sketch", "Cats"), ("Sketch", "Sea")], canvas.TRAIN[:1], 64, "bicubic")
    latents = sd.encode(torch.stack([images[i]["image"] for i in range(2)]), torch.Generator().manual_seed(1))
    t, noise = (
        torch.tensor([300, 700]),
        torch.randn(latents.shape, generator=torch.Generator().manual_seed(2)),
    )
    texts = [inversion.wording(probe.world, SKETCH, *row[:2]) for row in images.rows]
    ids, number = inversion.token_ids(sd, texts)

    def loss(entry):
        with inversion.spelled(sd, number, entry), torch.no_grad():
            return F.mse_loss(
                inversion.acted_eps(sd, NOTHING, ids, sd.embed(ids), sd.add_noise(latents, noise, t), t),
                noise,
            )

    word = sd.tokenizer("image", add_special_tokens=False)["input_ids"]
    start = sd.text_encoder.get_input_embeddings().weight[word].mean(0).clone()
    long = Inversion(probe.name, probe.answers, probe.seeds, probe.start, 1, 40, 2, 0.05)
    assert loss(inversion.learned(sd, NOTHING, long, SKETCH, "mini")) < loss(start)


def test_pictures_are_drawn_with_their_target_s_token(sd, probe):
    table = sd.text_encoder.get_input_embeddings().weight
    names = {"Sketch": "Rust", "Cats": "Sea"}
    tokens = {
        name: table[sd.tokenizer(near, add_special_tokens=False)["input_ids"][0]]
        for name, near in names.items()
    }
    prompts = [Asked(target, Cell("Sketch", "Cats", 188)) for target in (CATS, SKETCH)]
    drawn = list(inversion.pictures(sd, NOTHING, probe, prompts, tokens))
    assert [part for _, part, _ in drawn] == [prompts[1:], prompts[:1]]
    world = probe.world
    for (_, part, images), text in zip(
        drawn, ("A Cats image in Rust style.", "A Sea image in Sketch style.")
    ):
        cells = [cell for _, cell in part]
        assert (images == sample(sd, [text], cells, world.steps, world.guidance, world.size)).all()
