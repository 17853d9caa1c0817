"""SAeUron against the original: the SAE in both forms, its training, averages, scores, intervention."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from machine_unlearning.saeuron import edits, sae
from machine_unlearning.saeuron.plan import Plan, joined
from machine_unlearning.saeuron.selection import image_latents, means, planned, scores, selected, shares
from tests.seeded_weights import seeded_input, seeded_state_dict


class Case:
    """Description, networks and inputs of one instance; counts which of its outputs are compared."""

    def __init__(self, description, arrays):
        self.d, self.arrays, self.left = description, arrays, set(arrays.files)
        assert set(description["arrays"]) == self.left

    def network(self, k):
        """In float64, with unit rows of D."""
        rule = self.d["sae"]["weights"]
        state = seeded_state_dict(rule["shapes"], rule["seed"])
        network = sae.SAE(self.d["sae"]["inputs"], self.d["sae"]["latents"], k).double()
        network.load_state_dict({n.removeprefix(rule["prefix"]): w for n, w in state.items()})
        network.W_dec.data = sae.unit_rows(network.W_dec.data)
        return network

    def drawn(self, spec):
        values = seeded_input(spec["name"], spec["shape"], spec["seed"], spec["low"], spec["high"])
        return torch.from_numpy(values).double().clamp(min=spec.get("clip_below", -torch.inf))

    def latents(self):
        return {name: self.drawn(spec) for name, spec in self.d["concepts"].items()}

    def means(self, target, tmp_path):
        """[3,T,n] of a target: from one file a concept."""
        files, concepts = [], []
        for name, latents in self.latents().items():
            concepts += [name] * len(latents)
            files.append(tmp_path / f"{name}.npy")
            np.save(files[-1], latents.numpy())
        return means(files, shares(concepts, target))

    def close(self, got, name):
        self.left.discard(name)
        expected = torch.as_tensor(self.arrays[name])
        got = torch.as_tensor(got).detach()
        assert got.shape == expected.shape, name
        torch.testing.assert_close(got.to(expected.dtype), expected, **self.d["suggested_tolerance"])

    def all_read(self, *groups):
        """Whether all outputs whose names begin so were compared."""
        assert not [name for name in self.left if name.startswith(groups)]


@pytest.fixture
def case(fixture_file):
    return Case(*fixture_file("mu_saeuron"))


def test_every_output_belongs_to_a_test(case):
    groups = ("forward.", "training:", "averages:", "scores:", "intervention", "replace.")
    assert all(name.startswith(groups) for name in case.left)


def test_forward_losses_and_gradients(case):
    spec = case.d["forward"]
    x = case.drawn(spec["input"]).flatten(0, 1)
    for mode, options in spec["modes"].items():
        network, form, name = case.network(options["k"]), mode.removesuffix("_no_dead"), f"forward.{mode}:"
        dead = torch.zeros(case.d["sae"]["latents"], dtype=torch.bool)
        dead[spec["dead"]] = not mode.endswith("_no_dead")
        fvu, aux, z = sae.losses(network, x, dead, form, "published")
        made, loss = network.decode(z), fvu + spec["auxk_alpha"] * aux
        case.close(z, name + "latents"), case.close(made, name + "reconstruction")
        case.close(fvu, name + "fvu"), case.close(aux, name + "auxk"), case.close(loss, name + "loss")
        case.close((made - x).square().mean(), name + "l2")
        case.close((network.activate(x) > 0).sum(1).double().mean(), name + "l0")
        if dead.any():
            case.close(sae.losses(network, x, dead, form)[1], name + "auxk_correct")
        if form == "patch":
            assert torch.equal(z, network.encode(x))
        weights = dict(network.named_parameters())
        for n, gradient in zip(weights, torch.autograd.grad(loss, [*weights.values()])):
            case.close(gradient, f"{name}grad:{n}")
    case.all_read("forward.")


def test_training(case, tmp_path):
    spec = case.d["training"]
    assert spec["mode"] == "batch" and spec["lr_schedule"] == "linear to 0, no warm-up"
    assert spec["adam"] == {"betas": [0.9, 0.999], "eps": 6.25e-10} and spec["clip_norm"] == 1.0
    network, x = case.network(spec["k"]), case.drawn(spec["input"])
    batches = [part.flatten(0, 1) for part in x.split(spec["examples_per_batch"])] * spec["epochs"]
    assert {len(patches) for patches in batches} == {spec["tokens_per_batch"]}
    case.close(sae.geometric_median(batches[0]), "training:b_dec_start")
    s = SimpleNamespace(
        lr=spec["lr"], alpha=spec["auxk_alpha"], aux="published", dead_after=spec["dead_after_tokens"]
    )
    state = tmp_path / "state.pt"
    rows = list(sae.train(network, lambda start: iter(batches[start:]), len(batches), s, state, "a"))
    for number, name in {"fvu": "fvu", "aux": "auxk", "loss": "loss", "dead": "dead", "norm": "grad_norm",
                         "lr": "lr"}.items():  # fmt: skip
        case.close(torch.tensor([float(row[number]) for row in rows]), f"training:{name}")
    for name, weight in network.state_dict().items():
        case.close(weight, f"training:final:{name}")
    case.all_read("training:")


def test_averages_and_scores(case, tmp_path):
    x, network = case.drawn(case.d["averages"]["input"]), case.network(case.d["sae"]["k"])
    case.close(torch.stack([image_latents(network, maps) for maps in x.unbind(1)], 1), "averages:latents")
    spec = case.d["scores"]
    target, others, average = case.means(spec["target"], tmp_path)
    every = torch.stack([latents.mean(0) for latents in case.latents().values()])
    torch.testing.assert_close(average, every.mean(0))
    found = scores(target, others)
    case.close(found, "scores:all")
    assert spec["selected"].keys() == {str(percentile) for percentile in spec["percentiles"]}
    for percentile in spec["percentiles"]:
        case.close(found.quantile(percentile / 100, dim=1), f"scores:threshold:{percentile}")
        count = count_of(percentile, found.shape[1])
        assert selected(found, count).tolist() == spec["selected"][str(percentile)]
    case.all_read("averages:", "scores:")


def count_of(percentile, latents):
    """How many of the latents are above a percentile."""
    return latents - 1 - int(percentile / 100 * (latents - 1))


def test_intervention_and_replacement(case, tmp_path):
    spec, k = case.d["intervention"], case.d["sae"]["k"]
    X, network = case.drawn(spec["input"]), case.network(k).requires_grad_(False)
    x, draws = X.flatten(2).mT, case.drawn(case.d["replace"]["draws"])
    back = lambda y: y.mT.reshape(X.shape)  # noqa: E731
    z = network.encode(x.flatten(0, 1))
    case.close(back(network.decode(z).view_as(x)), "intervention:reconstruction")
    for name, c in spec["cases"].items():
        plans = []
        for target in c["targets"]:
            mean, count = case.means(target, tmp_path), count_of(c["percentile"], case.d["sae"]["latents"])
            parts = planned(mean, count, c["multiplier"])
            plans.append(Plan(target, *parts, torch.arange(mean.shape[1]), "", "", ""))
        t = c["timestep_index"]
        features, scale, average = (torch.cat([p[i][t] for p in plans]) for i in (1, 2, 3))
        assert features.tolist() == c["features"]
        case.close(scale, f"intervention.{name}:scale")
        case.close(average, f"intervention.{name}:average_all")
        step = joined(plans)[t]
        shared = [i for i in set(c["features"]) if c["features"].count(i) > 1]
        assert sorted(shared) == sorted(c["shared_features"])
        assert len(step.features) == len(set(c["features"]))
        assert (
            int((z[:, features] > average).sum()) == c["scaled_entries"]
        )  # shared ones as often as they are
        for residual in ("published", "none", "correct"):
            case.close(back(edits.scaled(network, x, step, residual)), f"intervention.{name}:{residual}")
        flags = edits.flagged(network, x, step)
        assert flags.sum(1).tolist() == c["flagged_patches"]
        case.close(flags.view(len(X), *X.shape[2:]), f"intervention.{name}:flagged")
        if name in case.d["replace"]["cases"]:
            case.close(back(edits.replaced(x, flags, draws)), f"replace.{name}:output")
    case.all_read("intervention", "replace.")
