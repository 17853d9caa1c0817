"""Semantic Surgery against the original: similarity, presence, strength, embedding, noise prediction."""

import pytest
import torch

from diffusion_model_finetuning.core.sd import guided_eps
from machine_unlearning.semantic_surgery.surgery import directions, edited, presence, similarity, strength
from tests.parity.test_mu_esd import build_unet, close
from tests.seeded_weights import seeded_input


def drawn(spec):
    return torch.from_numpy(
        seeded_input(spec["name"], spec["shape"], spec["seed"], spec["low"], spec["high"])
    )


@pytest.fixture
def case(fixture_file):
    """-> description, arrays, function of a text: its embedding [L,D]."""
    description, arrays = fixture_file("mu_semantic_surgery")
    prefix = description["prefix"]
    parts = {spec["name"].removeprefix(prefix): drawn(spec).double() for spec in description["inputs"]}

    def embed(text):
        rows = sum(factor * parts[part] for part, factor in description["texts"][text].items())
        rows[0] = parts["start"][0]
        assert len(rows) == description["length"]
        return rows

    return description, arrays, embed


def operated(case, name):
    """-> what is found in a case's prompt, and its edited embedding [L,D]."""
    description, _, embed = case
    c = description["cases"][name]
    text, neutral = embed(c["prompt"])[None], embed(c["neutral"])
    a = similarity(text, directions(torch.stack([embed(k) for k in c["concepts"]]), neutral))
    rho = presence(a, c["beta"], c["gamma"])
    # the original takes a similarity below 0 for 0: that of the empty prompt, which stands in its batch
    floored = presence(a.clamp(min=0), c["beta"], c["gamma"])
    rate, active = strength(floored, c["threshold"]), floored[0] > c["threshold"]
    if "forced" in c:
        rate = torch.full_like(rate, c["forced"]["strength"])
        active[c["forced"]["active"]] = True
    active = active.nonzero()[:, 0].tolist()
    found = {"similarity": a[0], "presence": rho[0], "strength": rate[0], "active": active}
    joined = embed(", ".join(c["concepts"][k] for k in active))
    away = directions(joined[None], neutral)
    return found, edited(text, away, rate)[0]


def test_edited_embeddings(case):
    description, arrays, embed = case
    for name, c in description["cases"].items():
        found, text = operated(case, name)
        expected = c["expected"]
        assert set(found) == set(expected) - {"unchanged"}
        for key, value in found.items():
            close(value, expected[key], description)
        assert torch.equal(text, embed(c["prompt"])) == expected["unchanged"]
        close(text, arrays[f"{name}:edited"], description)


@torch.no_grad()
def test_noise_predictions(case):
    description, arrays, embed = case
    unet = build_unet(description["unet"]["config"], lambda name: description["weights_seed"])
    asked = description["noise_prediction"]
    for name in asked["cases"]:
        text = operated(case, name)[1].float()[None]
        e = guided_eps(
            unet, drawn(asked["latent"]), asked["timestep"], text, embed("").float()[None], asked["guidance"]
        )
        close(e, arrays[f"{name}:eps"], description)


def test_every_output_is_compared(case):
    description, arrays, _ = case
    compared = {f"{name}:edited" for name in description["cases"]}
    assert set(arrays.files) == compared | {
        f"{name}:eps" for name in description["noise_prediction"]["cases"]
    }
