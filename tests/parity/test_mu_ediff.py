"""EDiff against the benchmark's port and the original: the two-phase loop, gradients, both multipliers."""

import pytest
import torch

from machine_unlearning.core import params
from machine_unlearning.core.forget import denoising_loss, relabelling_loss
from machine_unlearning.ediff.train import ediff_gradient, inner_product, multiplier, restore
from tests.parity.test_mu_salun import load_case  # noqa: F401  a pytest fixture


@pytest.fixture
def case(load_case):  # noqa: F811
    return load_case("mu_ediff")


def forget_batches(case, draws):
    latents = ["ediff/forget_latents"] * len(case.description["draws"][draws])
    return case.batches(draws, latents, "ediff/text_forget", "ediff/text_retain")


def retain_batches(case, draws):
    latents = ["ediff/retain_latents"] * len(case.description["draws"][draws])
    return case.batches(draws, latents, "ediff/text_retain")


def test_loop_of_the_port(case):
    """Every draw is either a batch to forget or one to keep; an outer step draws the latter first."""
    p, seen = case.parameters, {}
    trained = list(params.trainable(case.unet, "xattn").values())
    optimizer = torch.optim.Adam(trained, p["lr"])
    draws = zip(forget_batches(case, "run"), retain_batches(case, "run"), strict=True)

    def note(**numbers):
        for name, value in numbers.items():
            seen.setdefault(name, []).append(torch.as_tensor(value).item())

    for _ in range(p["epochs"]):
        start = [weight.detach().clone() for weight in trained]
        for _ in range(p["K"]):
            value = 0.0
            for _ in range(p["steps_per_pass"]):
                forgetting = relabelling_loss(case.unet, next(draws)[0])
                optimizer.zero_grad()
                forgetting.backward()
                optimizer.step()
                value += forgetting.item() / p["steps_per_pass"]
                note(inner_g=forgetting)
            note(inner_avg=value)
            restore(trained, start)
            for _ in range(p["steps_per_pass"]):
                retaining = denoising_loss(case.unet, next(draws)[1])
                forgetting = relabelling_loss(case.unet, next(draws)[0])
                strength = ediff_gradient(trained, retaining, forgetting, "constant", 0.0, p["alpha"])
                optimizer.step()
                total = retaining + strength * (forgetting - value)
                note(outer_g=forgetting, outer_retain=retaining, outer_total=total)
    for name, values in seen.items():
        case.close(torch.tensor(values, dtype=torch.float64).view(case.arrays[name].shape), name)
    assert next(draws, None) is None
    case.same_change("final_delta")


def losses(case):
    retain, forget = next(retain_batches(case, "single")), list(forget_batches(case, "single"))[1]
    return denoising_loss(case.unet, retain), relabelling_loss(case.unet, forget)


def test_single_step(case):
    trained = list(params.trainable(case.unet, "xattn").values())
    optimizer = torch.optim.Adam(trained, case.parameters["lr"])
    ediff_gradient(trained, *losses(case), "constant", 0.0, case.parameters["alpha"])
    optimizer.step()
    case.same_change("single_delta")


def test_gradients_and_adaptive_multipliers(case):
    weights = list(params.trainable(case.unet, "full").values())
    retaining, forgetting = losses(case)
    case.close(retaining, "single_retain")
    case.close(forgetting, "single_g")
    r, q = (torch.autograd.grad(loss, weights, retain_graph=True) for loss in (retaining, forgetting))
    dot, norms = inner_product(r, q), (inner_product(r, r) ** 0.5, inner_product(q, q) ** 0.5)
    case.close(norms, "single_grad_norms")
    case.close(dot / (norms[0] * norms[1]), "single_cos")
    eta, alpha = case.parameters["eta"], case.parameters["alpha"]
    for kind, name in (("cosine", "single_lambda_adaptive"), ("bome", "single_lambda_bome")):
        case.close(multiplier(kind, dot, *norms, eta, alpha), name)
        again = ediff_gradient(weights, *losses(case), kind, eta, alpha)
        case.close(again, name)
    ediff_gradient(weights, *losses(case), "constant", eta, alpha)
    case.close([weight.grad.double().abs().sum() for weight in weights], "single_grad_abs_sum")
