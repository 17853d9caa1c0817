"""SalUn against the original and the benchmark's port: both masks, losses, masked and unmasked Adam steps."""

import re
import zlib

import numpy as np
import pytest
import torch

from machine_unlearning.core import params
from machine_unlearning.core.forget import Batch, denoising_loss, relabelling_loss
from machine_unlearning.salun.mask import largest, saliency_loss, saliency_mask
from machine_unlearning.salun.train import salun_loss
from tests.parity.test_mu_esd import build_unet
from tests.seeded_weights import seeded_input

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ABAR = torch.cumprod(1 - BETAS, 0)


class Case:
    """A fixture's weights, inputs, draws and tolerances, in float32 or float64."""

    def __init__(self, description, arrays, dtype):
        assert description["schedule"].startswith(
            "1000 steps, betas = linspace(sqrt(0.00085), sqrt(0.012), 1000)^2"
        )
        assert description["parameter_order"].startswith("order of UNet2DConditionModel.named_parameters()")
        self.arrays, self.dtype, self.exact = arrays, dtype, dtype == torch.float64
        self.description, self.parameters = description, description["parameters"]
        text = description["tolerance"]
        rtol = re.search(r"rtol (\S+) for float32 code, (\S+) for float64", text["scalars"])
        self.rtol = float(rtol[2 if self.exact else 1])
        hamming = re.search(r"at most (\S+) of all entries in float32, (\S+) in float64", text["masks"])
        self.hamming = float(hamming[2 if self.exact else 1])
        self.delta_rtol = float(
            re.search(r"in float32 compare the abs-sum with rtol (\S+) and", text["deltas"])[1]
        )
        weights = description["weights"]
        self.unet = build_unet(weights["unet_config"], lambda name: weights["seed"]).to(dtype)
        self.names = [name for name, _ in self.unet.named_parameters()]
        assert self.names == arrays["keys"].tolist()
        self.start = {name: weight.detach().clone() for name, weight in self.unet.named_parameters()}

    def input(self, name):
        i = self.description["inputs"][name]
        return torch.from_numpy(seeded_input(name, i["shape"], i["seed"], i["low"], i["high"])).to(self.dtype)

    def batches(self, draws, latents, text, pseudo=None):
        """One Batch for each of the fixture's draws of that name."""
        for draw, x in zip(self.description["draws"][draws], latents, strict=True):
            t, x, noise = torch.tensor(draw["timesteps"]), self.input(x), self.input(draw["noise"])
            a = ABAR[t].view(-1, 1, 1, 1)
            noised = (a.sqrt() * x + (1 - a).sqrt() * noise).to(self.dtype)
            texts = (self.input(name).expand(len(t), -1, -1) for name in (text, pseudo or text))
            yield Batch(noised, t, noise, *texts)

    def close(self, got, name):
        expected = torch.from_numpy(np.asarray(self.arrays[name])).double()
        got = torch.as_tensor(got, dtype=torch.float64).detach()
        torch.testing.assert_close(got, expected, rtol=self.rtol, atol=0)

    def same_mask(self, mask, name, crc=None):
        """Bits in parameter order against a packed array, and its checksum."""
        got = np.packbits(torch.cat([mask[name].flatten() for name in self.names]).numpy())
        differing = np.unpackbits(got ^ self.arrays[name]).sum()
        assert differing <= self.hamming * sum(m.numel() for m in mask.values())
        if self.exact and crc:
            assert zlib.crc32(got.tobytes()) == self.description["expected"][crc]

    def same_counts(self, mask, name):
        got = torch.stack([mask[name].sum() for name in self.names])
        allowed = self.hamming * sum(m.numel() for m in mask.values())
        assert (got - torch.from_numpy(self.arrays[name])).abs().sum() <= allowed

    def same_change(self, name):
        """What moved since the start: sum, sum of absolute values, number of entries, for every tensor."""
        change = [(weight.detach() - self.start[n]).double() for n, weight in self.unet.named_parameters()]
        got = torch.stack([torch.stack([c.sum(), c.abs().sum(), (c != 0).sum()]) for c in change])
        expected = torch.from_numpy(self.arrays[name])
        if self.exact:
            torch.testing.assert_close(got[:, 1], expected[:, 1], rtol=self.rtol, atol=0)
            # a sum of many +-lr: relative to what is summed
            assert ((got - expected)[:, 0].abs() <= self.rtol * expected[:, 1]).all()
            assert torch.equal(got[:, 2], expected[:, 2])
        else:
            torch.testing.assert_close(got[:, 1], expected[:, 1], rtol=self.delta_rtol, atol=0)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def load_case(request, fixture_file):
    return lambda name: Case(*fixture_file(name), request.param)


@pytest.fixture
def case(load_case):
    return load_case("mu_salun")


def original_mask(case):
    latents = [f"salun/forget_latents_{i}" for i in range(len(case.description["draws"]["mask"]))]
    batches = list(case.batches("mask", latents, "salun/text_forget"))
    null, w = case.input("salun/text_null"), case.parameters["w"]
    return (
        batches,
        null,
        saliency_mask(case.unet, batches, null, w, case.parameters["mask_ratio_original"], "full"),
    )


def test_mask_of_the_original(case):
    batches, null, mask = original_mask(case)
    expected = case.description["expected"]
    assert sum(m.numel() for m in mask.values()) == expected["N"]
    assert sum(int(m.sum()) for m in mask.values()) == expected["ones_original"]
    case.same_mask(mask, "mask_original_packed", "crc32_mask_original_packed")
    case.same_counts(mask, "mask_original_counts")
    in_attn2 = sum(int(m.sum()) for n, m in mask.items() if "attn2" in n)
    assert abs(in_attn2 - expected["attn2_ones"]) <= case.hamming * expected["N"]

    weights = params.trainable(case.unet, "full")
    losses = [saliency_loss(case.unet, batch, null, case.parameters["w"]) for batch in batches]
    case.close(torch.stack(losses), "mask_stage_losses")
    sum(losses).backward()
    scores = {name: weight.grad.abs() for name, weight in weights.items()}
    case.close([s.double().sum() for s in scores.values()], "grad_abs_sum")
    kept = min(s[mask[n]].min() for n, s in scores.items() if mask[n].any())
    dropped = max(s[~mask[n]].max() for n, s in scores.items() if not mask[n].all())
    case.close([kept, dropped], "mask_threshold")


def train_step(case, draws, pseudo, alpha, mask, prefix):
    latents = ["salun/retain_latents", "salun/forget_latents_0"]
    retain = next(case.batches(draws, latents, "salun/text_retain"))
    _, forget = case.batches(draws, latents, "salun/text_forget", pseudo)
    trained = params.trainable(case.unet, "xattn")
    optimizer = torch.optim.Adam(trained.values(), case.parameters["lr"])
    retaining, forgetting = denoising_loss(case.unet, retain), relabelling_loss(case.unet, forget)
    case.close(retaining, f"{prefix}retain_loss")
    case.close(forgetting, f"{prefix}forget_loss")
    loss = salun_loss(forgetting, retaining, alpha)
    loss.backward()
    if mask:
        params.mask_gradients(trained, mask)
    optimizer.step()
    return loss


def test_masked_step(case):
    _, _, mask = original_mask(case)
    loss = train_step(case, "train", "salun/text_pseudo", case.parameters["alpha"], mask, "")
    case.close(loss, "total_loss")
    case.same_change("masked_step_delta")


def test_mask_of_the_port(case):
    """Its flaws: one batch, no null prompt, weights that move meanwhile, and the least chosen."""
    weights = params.trainable(case.unet, "full")
    optimizer = torch.optim.Adam(weights.values(), case.parameters["lr_mask_uc"])
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    latents = ["salun/forget_latents_0"] * len(case.description["draws"]["mask_uc"])
    for batch in case.batches("mask_uc", latents, "salun/text_forget"):
        optimizer.zero_grad()
        saliency_loss(case.unet, batch, batch.text, case.parameters["w"]).backward()
        for name, weight in weights.items():
            sums[name] += weight.grad
        optimizer.step()
    mask = largest({name: -g.abs() for name, g in sums.items()}, case.parameters["mask_ratio_uc"])
    case.same_mask(mask, "mask_uc_packed", "crc32_mask_uc_packed")
    case.same_counts(mask, "mask_uc_counts")


def test_step_of_the_port(case):
    """Its mask reaches no gradient; alpha is 1 and the substitute prompt is the retained one."""
    alpha = float(re.search(r"alpha=([\d.]+)", case.description["formula"]["train_uc"])[1])
    train_step(case, "train_uc", "salun/text_retain", alpha, None, "uc_")
    case.same_change("uc_step_delta")
