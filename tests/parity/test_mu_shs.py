"""SHS against the benchmark's port: scores, threshold, trimming, a training step, the projection."""

import pytest
import torch

from machine_unlearning.core import params
from machine_unlearning.core.forget import denoising_loss, relabelling_loss
from machine_unlearning.shs.train import gradient, memory, multipliers, project, project_gradients
from machine_unlearning.shs.trim import sensitivity, threshold, trim
from tests.parity.test_mu_salun import load_case  # noqa: F401  a pytest fixture
from tests.seeded_weights import seeded_input


@pytest.fixture
def case(load_case):  # noqa: F811
    return load_case("mu_shs")


def batches(case, draws):
    latents = ["shs/forget_latents"] * len(case.description["draws"][draws])
    return list(case.batches(draws, latents, "shs/text_forget"))


def scored(case):
    scores = sensitivity(case.unet, batches(case, "snip"))
    return scores, threshold(scores, case.parameters["sparsity"])


def trimmed(case):
    """The unet after the first stage; the fixture's values stand in for random ones."""
    rule = case.description["inputs"]["shs/reinit/<parameter key>"]

    def draw(name, weight):
        if name.endswith(".bias"):
            return torch.zeros_like(weight)
        values = seeded_input(f"shs/reinit/{name}", weight.shape, rule["seed"], rule["low"], rule["high"])
        return torch.from_numpy(values).to(weight)

    return trim(params.trainable(case.unet, "xattn"), *scored(case), draw)


def test_scores_and_threshold(case):
    for batch, expected in zip(batches(case, "snip"), case.arrays["snip_losses"], strict=True):
        assert denoising_loss(case.unet, batch).item() == pytest.approx(expected, rel=case.rtol)
    scores, tau = scored(case)
    expected = case.description["expected"]
    total = sum(score.numel() for score in scores.values())
    assert (total, int(case.parameters["sparsity"] * total)) == (expected["N"], expected["k"])
    case.close([score.double().sum() for score in scores.values()], "score_sum")
    mask = {name: score > tau for name, score in scores.items()}
    case.close([tau, min(scores[n][m].min() for n, m in mask.items() if m.any())], "threshold")
    case.same_mask(mask, "reset_packed", "crc32_reset_packed")
    case.same_counts(mask, "reset_counts")
    assert sum(int(m.sum()) for m in mask.values()) == expected["marked_total"]


def test_trimming(case):
    count = trimmed(case)
    allowed = case.hamming * case.description["expected"]["N"]
    assert abs(count - case.description["expected"]["marked_attn2"]) <= allowed
    case.same_change("reinit_delta")


def training_losses(case):
    latents = ["shs/retain_latents", "shs/forget_latents"]
    retain = next(case.batches("train", latents, "shs/text_retain"))
    _, forget = case.batches("train", latents, "shs/text_forget", "shs/text_retain")
    return denoising_loss(case.unet, retain), relabelling_loss(case.unet, forget)


def test_step(case):
    trimmed(case)
    case.start = {name: weight.detach().clone() for name, weight in case.unet.named_parameters()}
    optimizer = torch.optim.Adam(params.trainable(case.unet, "full").values(), case.parameters["lr"])
    retaining, forgetting = training_losses(case)
    loss = retaining + case.parameters["alpha"] * forgetting
    for value, name in ((retaining, "retain_loss"), (forgetting, "forget_loss"), (loss, "total_loss")):
        case.close(value, name)
    loss.backward()
    optimizer.step()
    case.same_change("step_delta")


def test_projection(case):
    trimmed(case)
    part, p = list(params.trainable(case.unet, "xattn").values()), case.parameters
    for batch, expected in zip(batches(case, "memory"), case.arrays["memory_losses"], strict=True):
        assert -denoising_loss(case.unet, batch).item() == pytest.approx(expected, rel=case.rtol)
    G = torch.stack([memory(case.unet, part, batch) for batch in batches(case, "memory")])
    retaining, forgetting = training_losses(case)
    (retaining + p["alpha"] * forgetting).backward()
    g = gradient(part)
    case.close(G @ g, "memory_dots")
    case.close(G.norm(dim=1), "memory_norms")
    case.close(g.norm(), "grad_norm")

    limits = p["margin"], p["qp_eps"]
    case.close(multipliers(g, G[:1], *limits)[0], "proj1_v")
    case.close(project(g, G[:1], *limits).norm(), "proj1_norm")
    both = project(g, G, *limits)
    case.close(both.norm(), "proj2_norm")
    case.close(G @ both, "proj2_dots")

    conflicting = g - p["conflict_scale"] * G[0]
    case.close(conflicting @ G[0], "conflict_dot_before")
    case.close(multipliers(conflicting, G[:1], *limits)[0], "conflict_v")
    mended = project(conflicting, G[:1], *limits)
    case.close(mended.norm(), "conflict_norm")
    case.close(mended @ G[0], "conflict_dot_after")

    assert project_gradients(part, G[:1]) == bool(G[0] @ g < 0)
    assert torch.equal(gradient(part), project(g, G[:1]) if G[0] @ g < 0 else g)
