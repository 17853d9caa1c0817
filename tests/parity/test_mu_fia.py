"""FIA and ConceptPrune against the originals: column statistics, saliency, sensitivity, masks, fusion."""

from functools import cache

import numpy as np
import pytest
import torch

from diffusion_model_finetuning.core.sd import eps
from machine_unlearning.fia import activations, pruning
from tests.parity.test_mu_esd import build_unet
from tests.seeded_weights import seeded_input

HALVES = ("both", "conditional")


def drawn(spec):
    return torch.from_numpy(
        seeded_input(spec["name"], spec["shape"], spec["seed"], spec["low"], spec["high"])
    )


class Case:
    """A fixture, and which of its arrays have been compared."""

    def __init__(self, description, arrays):
        self.d, self.arrays, self.compared = description, arrays, set()
        unet = build_unet(description["unet"]["config"], lambda name: description["weights_seed"])
        self.unet = unet.double()
        self.layers = activations.layers(self.unet)
        self.latents, self.null = (drawn(description[name]).double() for name in ("latents", "null"))

    @cache  # noqa: B019  a case lives as long as its test
    def norms(self, prompt, halves):
        """u [T,I] by layer: one call a step, at the latents of that step."""
        text, walk = drawn(self.d["prompts"][prompt]).double(), []
        texts = torch.stack([self.null, text] if halves == "both" else [text])
        with activations.recorded(self.unet, 1, halves) as seen, torch.no_grad():
            for x, t in list(zip(self.latents, self.d["timesteps"]))[: self.d["observed_steps"]]:
                eps(self.unet, x.expand(len(texts), -1, -1, -1), t, texts)
                walk.append(dict(seen))
        return {name: torch.cat([step[name] for step in walk]) for name in seen}

    def sides(self, concept, halves, layer):
        """u [T,P,I] of the concept's prompts and of its base prompts."""
        lists = (self.d["concepts"][concept][side] for side in ("concept", "base"))
        return [
            torch.stack([self.norms(prompt, halves)[layer] for prompt in prompts], 1) for prompts in lists
        ]

    def flagged(self, concept, halves, layer):
        A = pruning.sensitivity(
            self.layers[layer].weight, pruning.gain(*self.sides(concept, halves, layer)), self.d["r1"]
        )
        return A, pruning.flagged(A, self.d["concepts"][concept]["r2"])

    def close(self, got, key):
        """A key may have no array."""
        if key in self.arrays.files:
            tolerance = self.d["suggested_tolerance"]
            expected = torch.from_numpy(self.arrays[key]).to(got)
            torch.testing.assert_close(got, expected, rtol=tolerance["rtol"], atol=tolerance["atol"])
            self.compared.add(key)

    def equal(self, mask, key):
        if key in self.arrays.files:
            expected = np.unpackbits(
                self.arrays[key], axis=-1, count=self.layers[key.rpartition(":")[2]].weight.numel()
            )
            differing = (mask.reshape(expected.shape).numpy() != expected).sum()
            assert differing <= self.d["suggested_tolerance"]["mask_bits"], key
            self.compared.add(key)

    def count(self, masks, expected):
        slack = self.d["suggested_tolerance"]["mask_bits"] * len(self.layers)
        assert abs(sum(int(mask.sum()) for mask in masks) - expected) <= slack


@pytest.fixture
def case(fixture_file):
    return Case(*fixture_file("mu_fia"))


def test_layers(case):
    assert [*case.layers] == case.d["layers"]


def test_statistics_saliency_and_masks(case):
    for name, concept in case.d["concepts"].items():
        assert concept["flagged"].keys() <= {*HALVES}
        for halves in concept["flagged"]:
            for layer, module in case.layers.items():
                key = lambda what, where=f"{name}.{halves}", layer=layer: f"{where}:{what}:{layer}"  # noqa: E731
                for side, u in zip(("concept", "base"), case.sides(name, halves, layer)):
                    case.close(u.mean(1), key(f"{side}_mean"))
                    case.close(u.std(1, correction=0), key(f"{side}_std"))
                last = pruning.gain(*case.sides(name, halves, layer))[-1]
                case.close(module.weight.abs() * last, key("saliency_last"))
                A, mask = case.flagged(name, halves, layer)
                case.close(A, key("sensitivity"))
                case.equal(mask, key("mask"))
                case.count([mask], concept["flagged"][halves][layer])


def test_fusion(case):
    total = sum(module.weight.numel() for module in case.layers.values())
    for name, fusion in case.d["fusions"].items():
        pruned, spared = [], []
        for layer in case.layers:
            masks = [case.flagged(concept, "both", layer)[1] for concept in fusion["concepts"]]
            pruned.append(pruning.fused(masks, fusion["alpha"]))
            spared.append(torch.stack(masks).any(0) & ~pruned[-1])
            case.equal(pruned[-1], f"fused.{name}:mask:{layer}")
        case.count(pruned, fusion["pruned"])
        case.count(spared, fusion["kept_as_agnostic"])
        case.count(pruned, fusion["pruned_share"] * total)


def test_concept_prune(case):
    rule, united = case.d["concept_prune"], {share: [] for share in case.d["concept_prune"]["shares"]}
    for layer, module in case.layers.items():
        norms = [pruning.joint_norms(u) for u in case.sides(rule["concept"], "both", layer)]
        for side, u in zip(("concept", "base"), norms):
            case.close(u, f"concept_prune:{side}_norm:{layer}")
        steps = torch.stack([pruning.skilled(module.weight, *u, rule["ratio"]) for u in zip(*norms)])
        case.equal(steps, f"concept_prune:per_step:{layer}")
        for share, masks in united.items():
            masks.append(pruning.agreed(steps, share))
            case.equal(masks[-1], f"concept_prune.{share:g}:mask:{layer}")
    for share, masks in united.items():
        case.count(masks, rule["flagged_total"][f"{share:g}"])


def test_every_output_is_compared(case):
    """By the tests above."""
    for test in (test_statistics_saliency_and_masks, test_fusion, test_concept_prune):
        test(case)
    assert case.compared == {*case.arrays.files}
