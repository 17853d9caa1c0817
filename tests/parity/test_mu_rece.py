"""RECE against the original: its UCE stage, embeddings of all regularisers, epochs of several concepts."""

import pytest
import torch

from machine_unlearning.core import params
from machine_unlearning.core.closed_form import Pair, align, edited, gram
from machine_unlearning.rece.train import derived, products
from tests.parity.test_mu_esd import build_unet, close
from tests.seeded_weights import seeded_input

SCALES = ("lamb", "erase_scale", "preserve_scale")


@pytest.fixture
def case(fixture_file):
    """-> the file, its arrays, the unedited weights, name -> rows of a prompt."""
    description, arrays = fixture_file("mu_rece")
    unet = build_unet(description["unet"]["config"], lambda name: description["weights_seed"])
    weights = {name: W.detach().double() for name, W in params.trainable(unet, "xattn_kv").items()}
    drawn = {
        i["name"]: torch.from_numpy(seeded_input(i["name"], i["shape"], i["seed"], i["low"], i["high"]))
        for i in description["inputs"]
    }
    texts = {name: drawn[p["embedding"]].double() for name, p in description["prompts"].items()}
    return description, arrays, weights, texts


def stored(arrays, stage, weights):
    """The weights that the file has of a stage, float64, in the order of ours."""
    names = {name.partition(":")[2] for name in arrays.files if name.partition(":")[0] == stage}
    assert names == weights.keys()
    return [torch.from_numpy(arrays[f"{stage}:{name}"]).double() for name in weights]


def scales(options):
    return [options[name] for name in SCALES]


def test_uce_stage(case):
    description, arrays, weights, texts = case
    options = description["uce"]

    def last(name):
        return description["prompts"][name]["last_content_index"]

    pairs = [
        align(texts[edit], texts[guide], last(edit), last(guide), "all")
        for edit, guide in zip(options["edit"], options["guide"], strict=True)
    ]
    keep = gram(torch.cat([texts[name] for name in options["preserve"]]))
    for W, expected in zip(weights.values(), stored(arrays, "uce", weights), strict=True):
        close(edited(W, pairs, keep, *scales(options), options["technique"]), expected, description)


def test_derived_embeddings(case):
    description, arrays, weights, texts = case
    G, X = products(stored(arrays, "uce", weights), [*weights.values()])
    assert {f"derived:{name}" for name in description["derive"]} == {
        name for name in arrays.files if name.startswith("derived:")
    }
    for name, options in description["derive"].items():
        guide = texts[options["target"]] if "target" in options else None
        got = derived(texts[options["concept"]], G, X, options["scale"], options["kind"], guide)
        close(got, arrays[f"derived:{name}"], description)


def test_epochs(case):
    description, arrays, weights, texts = case
    stages = {"uce", "derived"}
    for name, options in description["runs"].items():
        current, derive = stored(arrays, "uce", weights), options["derive"]
        keep = gram(torch.cat([texts[prompt] for prompt in options["preserve"]]))
        for epoch in range(1, options["epochs"] + 1):
            G, X = products(current, [*weights.values()])
            pairs = [
                Pair(
                    derived(texts[concept], G, X, derive["scale"], derive["kind"], texts[guide]), texts[guide]
                )
                for concept, guide in zip(options["concepts"], options["guides"], strict=True)
            ]
            current = [edited(W, pairs, keep, *scales(options), options["technique"]) for W in current]
            stages.add(stage := f"{name}.epoch{epoch}")
            for got, expected in zip(current, stored(arrays, stage, weights), strict=True):
                close(got, expected, description)
    assert stages == {name.partition(":")[0] for name in arrays.files}
