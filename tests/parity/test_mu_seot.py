"""SEOT against the original: SWR, masks, the four losses, gradients, attention maps, two ITO updates."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from machine_unlearning.seot.intervene import attention_maps, ito, level_of, word_flags
from machine_unlearning.seot.suppress import ito_loss, ito_terms, swr, word_masks
from tests.seeded_weights import seeded_state_dict

DESCRIBED = {"unet", "heads", "variant"}  # entries of the configuration that are prose


@pytest.fixture
def case(seeded_case):
    return seeded_case("mu_seot")


def build_unet(description):
    """The seeds of its weights are those of their names with a prefix."""
    config = {key: value for key, value in description["config"].items() if key not in DESCRIBED}
    unet, weights = UNet2DConditionModel(**config), description["weights"]["unet"]
    state = seeded_state_dict(weights["shapes"], weights["seed"])
    unet.load_state_dict({name.removeprefix(weights["prefix"]): tensor for name, tensor in state.items()})
    return unet.eval().requires_grad_(False)


def close(got, case, name):
    description, arrays, _ = case
    expected = torch.as_tensor(np.asarray(arrays[name]))
    got = torch.as_tensor(got, dtype=expected.dtype).reshape(expected.shape)
    torch.testing.assert_close(got, expected, **description["tolerance"])


def lambdas(description):
    """The four losses' factors, from the formula in words."""
    terms = r"(\S*) ?retain ([+-] \S*) ?erase ([+-] \S*) ?self_retain ([+-] \S*) ?self_erase"
    factors = re.match(terms, description["outputs"]["loss"]["what"]).groups()
    return [float(text.replace(" ", "") + ("" if text[-1:].isdigit() else "1")) for text in factors]


def test_soft_weighted_regularisation(case):
    description, arrays, inputs = case
    (text,), positions, count = inputs["embedding"], inputs["token_indices"], inputs["n_tokens"]
    for name in (name for name in arrays.files if name.startswith("swr_alpha_")):
        close(swr(text, positions, count, float(name.removeprefix("swr_alpha_"))), case, name)
    rows = [*positions, *range(count - 1, len(text))]
    rule = r"alpha = (\S+) branch of the original repository: s \* (\S+) \* exp"
    alpha, factor = re.search(rule, description["outputs"]["swr_strengthen"]["what"]).groups()
    stronger = swr(text, positions, count, float(alpha))
    stronger[rows] *= float(factor)
    close(stronger, case, "swr_strengthen")
    # alpha = 0 puts the rows together again: their singular values are those that SWR works on
    close(torch.linalg.svdvals(swr(text, positions, count, 0.0)[rows]), case, "singular_values")


def test_masks_losses_and_gradients(case):
    description, arrays, inputs = case
    A, S, A_new, S_new = (
        inputs[name].double().flatten(0, 1)[None]
        for name in ("attn", "self_attn", "attn_erased", "self_attn_erased")
    )
    count, length = inputs["loss_n_tokens"], A.shape[-1]
    erase, retain = word_flags([inputs["loss_token_indices"]], [count], length)
    shown = word_masks(A, erase)
    np.testing.assert_array_equal(
        shown[0].mT[1 : count - 1].reshape(arrays["masks"].shape), arrays["masks"].astype(bool)
    )
    terms = ito_terms(A, S, shown, A_new.requires_grad_(), S_new.requires_grad_(), erase, retain)
    names = ("loss_retain", "loss_erase", "loss_self_retain", "loss_self_erase")
    for name, term in zip(names, terms, strict=True):
        close(term.detach(), case, name)
    loss = ito_loss(terms, lambdas(description))
    close(loss.detach(), case, "loss")
    loss.sum().backward()
    close(A_new.grad, case, "grad_attn_erased")
    close(S_new.grad.sum(-1), case, "grad_self_attn_erased_sum")


def test_inference_time_optimisation(case):
    description, arrays, inputs = case
    unet = build_unet(description)
    x, text, positions = inputs["latent"], inputs["prompt_embedding"], inputs["ito_token_indices"]
    side = len(arrays["ito_attn"])
    level = level_of(unet.config, x.shape[-1], side)
    look = partial(attention_maps, unet, x, inputs["timestep"], level=level)
    with torch.no_grad():
        A, S = reference = look(text)
    close(A, case, "ito_attn")
    close(S[0, :side], case, "ito_self_attn_row")

    count = inputs["ito_n_tokens"]
    flags = word_flags([positions], [count], text.shape[1])
    new = swr(text[0], positions, count, inputs["ito_alpha"])[None]
    close(new, case, "ito_start")
    rule = r"i of (\d+); factor = sqrt\(linspace\((\S+), (\S+), \1\)\[i\]\)"
    steps, first, last = re.search(rule, description["inputs"]["step_index"]["note"]).groups()
    factor = torch.linspace(float(first), float(last), int(steps))[inputs["step_index"]].sqrt()
    rate = inputs["scale"] * float(factor)
    s = SimpleNamespace(iterations=1, lambdas=lambdas(description))
    for i in range(sum(name.startswith("ito_loss_") for name in arrays.files)):
        with torch.no_grad():
            terms = ito_terms(*reference, word_masks(A, flags[0]), *look(new), *flags)
        close(ito_loss(terms, s.lambdas), case, f"ito_loss_{i}")
        new = ito(new, look, reference, *flags, rate, s)
    close(new, case, "ito_embedding")
