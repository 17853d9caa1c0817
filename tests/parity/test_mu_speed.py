"""SPEED against the original: invariants, filter, copies, free space, edited weights; last and all tokens."""

import pytest
import torch

from machine_unlearning.core import params
from machine_unlearning.speed.retain import free_space, retained, weakest
from machine_unlearning.speed.train import MAPS, edited, invariants, moments, token_rows, unprotected
from tests.parity.test_mu_esd import build_unet, close
from tests.seeded_weights import seeded_input

NAMED = {"V": "values", "K": "keys", "KV": "both"}  # the file's words for what is edited


def draw(spec, shape=None):
    values = seeded_input(spec["name"], shape or spec["shape"], spec["seed"], spec["low"], spec["high"])
    return torch.from_numpy(values).double()


@pytest.fixture
def case(fixture_file):
    description, arrays = fixture_file("mu_speed")
    unet = build_unet(description["unet"]["config"], lambda name: description["weights_seed"])
    drawn = {spec["name"]: draw(spec) for spec in description["inputs"]}
    texts = {name: drawn[prompt["embedding"]] for name, prompt in description["prompts"].items()}
    assert {len(text) for text in texts.values()} == {description["length"]}
    return description, arrays, unet, texts


def test_every_weight(case):
    description, arrays, unet, texts = case
    K = invariants(texts["empty"], description["kmeans"]["init_rows"])
    ordered = [K.T[0], *sorted(K.T[1:], key=lambda row: float(row[0]))]
    start, *centres = torch.from_numpy(arrays["invariants"])
    close(
        torch.stack(ordered),
        torch.stack([start, *sorted(centres, key=lambda row: float(row[0]))]),
        description,
    )
    read = {"invariants"}

    def rows(names, tokens):
        ends = [description["prompts"][name]["last_content_index"] for name in names]
        return token_rows(torch.stack([texts[name] for name in names]), ends, tokens)

    for label, options in description["cases"].items():
        tokens = options["tokens"]
        T, A = moments(rows(options["targets"], tokens), rows(options["anchors"], tokens))
        shift, keep = unprotected(T, A), rows(options["retain"], tokens).flatten(0, 1)
        noise = draw(description["noise"], (options["copies"], *keep.shape))
        filtered = options["copies"] > 0 and not options["disable_filter"]
        maps = MAPS[NAMED[options["params"]]]
        matrices = {n: W for n, W in params.trainable(unet, "xattn_kv").items() if n.split(".")[-2] in maps}
        for fact in ("null_dimensions", "kept", "rows"):
            assert options[f"expected_{fact}"].keys() == matrices.keys()
        for name, W in matrices.items():
            W = W.detach().double()
            v = weakest(W)
            kept = retained(keep, W @ shift, v, noise @ v, filtered, options["chunk"])
            assert kept.passed.nonzero().flatten().tolist() == options["expected_kept"][name]
            assert kept.count == options["expected_rows"][name]
            U = free_space(kept.moment, options["threshold"])
            assert U.shape[1] == options["expected_null_dimensions"][name]
            new = edited(W, T, A, U, K, options["retain_scale"], options["lamb"])
            close(new, arrays[f"{label}:{name}"], description)
            read.add(f"{label}:{name}")
    assert read == set(arrays.files)
