"""SANet, MAST, MCCNet, AdaAttN and ArtFlow against their originals: every output and stage of the fixtures
whose JSON lists them under `expected` and `stages`.

The weights' scale factors and overrides, the options and the tolerances are the fixture's. Pictures are
compared before clipping; float64 variants run in float64.
"""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from style_transfer.core.networks import with_options
from tests.seeded_weights import seeded_array, seeded_input, seeded_state_dict

METHODS = ("sanet", "mast", "mccnet", "adaattn", "artflow")


def override(rule, key, shape, seed):
    """A tensor made by one of the schema's override rules."""
    name = rule["rule"]
    if name == "one_plus":
        return torch.from_numpy(np.float32(1 + rule["factor"] * seeded_array(key, shape, seed)))
    if name == "sign":
        return torch.from_numpy(np.sign(seeded_array(key, shape, seed)))
    if name == "permutation":
        order = np.argsort(seeded_array(key, shape[:1], seed), kind="stable")
        return torch.eye(shape[0])[order]
    if name == "uint8_one":
        return torch.ones(shape, dtype=torch.uint8)
    if name == "identity":
        return torch.eye(shape[0])
    ones = torch.ones(shape)
    return {"strict_upper_ones": ones.triu(1), "strict_lower_ones": ones.tril(-1)}[name]


def weights(description, file):
    """The state dict of one released file."""
    rules, seed, shapes = description["weights"], description["seed"], description["files"][file]
    state = seeded_state_dict(shapes, seed)
    for key in state:
        for pattern, factor in rules["scale"][file]:
            if re.search(pattern, key):
                state[key] = state[key] * factor
        for rule in rules["overrides"]:
            if re.search(rule["match"], key):
                state[key] = override(rule, key, shapes[key], seed)
    return state


def options_of(options):
    """The fixture's options in this project's words."""
    words = {"alpha": "strength", "max_sample_3": "samples", "op": "operator"}
    options = {words.get(name, name): value for name, value in options.items()}
    if "layers" in options:
        options["layers"] = options["layers"].split(",")
    return options


class Case:
    def __init__(self, method, description, arrays, folder):
        self.method, self.description, self.arrays = method, description, arrays
        files = {}
        for file in description["files"]:
            files[file] = folder / file
            state = weights(description, file)
            total = sum(tensor.double().abs().sum().item() for tensor in state.values())
            assert total == pytest.approx(description["weights"]["state_abs_sum"][file], rel=1e-9)
            nested = {"iter": 1, "state_dict": state, "optimizer": {"state": {0: {"step": 1}}}}
            torch.save(nested if method == "artflow" else state, files[file])
        self.network = importlib.import_module(f"style_transfer.{method}.model").load(files)
        self.images = {
            name: torch.from_numpy(
                seeded_input(spec["name"], spec["shape"], spec["seed"], spec["low"], spec["high"])
            )
            for name, spec in description["inputs"].items()
        }

    def at(self, dtype):
        """The network, and content and style, in the precision of an output."""
        dtype = getattr(torch, dtype)
        return self.network.to(dtype), self.images["content"].to(dtype), self.images["style"].to(dtype)

    def close(self, got, name, expected):
        assert torch.isfinite(got).all()
        reference = torch.from_numpy(self.arrays[name])
        got, atol = got.to(reference.dtype), expected["suggested_atol"]
        torch.testing.assert_close(got, reference, rtol=0, atol=atol, msg=lambda text: f"{name}: {text}")


@pytest.fixture(scope="module", params=METHODS)
def case(request, tmp_path_factory):
    folder, method = Path(request.config.getoption("references")), request.param
    if not (folder / f"st_{method}.json").exists():
        pytest.skip(f"{folder} has no st_{method}.json")
    description = json.loads((folder / f"st_{method}.json").read_text())
    return Case(method, description, np.load(folder / f"st_{method}.npz"), tmp_path_factory.mktemp(method))


def test_outputs(case):
    for name, expected in case.description["expected"].items():
        network, content, style = case.at(expected["compute_dtype"])
        got = network.stylise(content, style, **options_of(expected["options"]))
        assert list(got.shape) == expected["shape"]
        case.close(got, name, expected)


def stages_of(method, network, content, style, options):
    """What the network holds on its way to an output, under the fixture's names."""
    if method == "mast":
        network = with_options(network, **options)
        layers = network.layers
        c, s = network.encode_content(content), network.encode_style(style)
        # a chain that ends early gives its level's picture
        parts = [layers[: end + 1] for end in range(len(layers))]
        pictures = {f"image_{part[-1]}": with_options(network, layers=part).decode(c, s) for part in parts}
        aligned = with_options(network, strength=1).blend(c[layers[0]], s[layers[0]])
        return {f"csf_{layers[0]}": aligned} | pictures
    if method == "artflow":
        return {"z_content": network(content), "reconstruction": network.reverse(network(content))}
    c = network.encode_content(content)
    s = with_options(network, **(options if method == "adaattn" else {})).encode_style(style)
    if method == "sanet":
        return {"content_relu5_1": network.encoder(content)[4], "fused": network.transform(c, s)}
    if method == "mccnet":
        return {"fused": network.fuse(c, s)}
    assert method == "adaattn"
    return {"adaattn_3": network.adaattn_3(*c[:2], *s[:2]), "fused": network.transformer(c[2:], s[2:])}


def test_stages(case):
    """A stage belongs to the output it is named after, or to the first."""
    names, compared = case.description["expected"], set()
    for output, expected in names.items():
        network, content, style = case.at(expected["compute_dtype"])
        options = options_of(expected["options"])
        for stage, got in stages_of(case.method, network, content, style, options).items():
            for name in (f"{output}__{stage}", stage if output == next(iter(names)) else None):
                if name in case.description["stages"]:
                    shape = case.description["stages"][name]
                    case.close(got[:, : shape[1]], f"stage_{name}", expected)
                    compared.add(name)
    assert compared == set(case.description["stages"])
    assert {f"stage_{name}" for name in compared} | set(names) == set(case.arrays.files)


def test_images_do_not_depend_on_their_batch(case):
    """Nor on whether their features are computed together."""
    name, expected = next(iter(case.description["expected"].items()))
    network, content, style = case.at(expected["compute_dtype"])
    options = options_of(expected["options"])
    contents, styles = torch.cat([content, content.flip(3)]), torch.cat([style, style.flip(2) ** 2])
    together = network.stylise(contents, styles, **options)
    case.close(together[: len(content)], name, expected)
    alone = network.stylise(contents[len(content) :], styles[len(content) :], **options)
    torch.testing.assert_close(together[len(content) :], alone, rtol=0, atol=expected["suggested_atol"])


def test_unused_weights(case):
    """MCCNet's `h` is in the file and has no effect."""
    if case.method != "mccnet":
        pytest.skip("MCCNet's file only")
    network, content, style = case.at("float32")
    before = network.stylise(content, style)
    for parameter in network.module["MCCN"].h.parameters():
        parameter.mul_(-2)
    assert torch.equal(network.stylise(content, style), before)
