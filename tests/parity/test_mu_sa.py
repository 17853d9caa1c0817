"""SA against the original, in float64: Fisher information, losses, penalty, the gradient of their sum."""

import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.sd import StableDiffusion, eps
from machine_unlearning.core import params
from machine_unlearning.sa.fisher import add_squares, sum_gradients
from machine_unlearning.sa.train import add_ewc
from tests.parity.test_mu_esd import build_unet
from tests.seeded_weights import seeded_input

TRAIN_STEPS = 1000


class Case:
    def __init__(self, description, arrays):
        self.description, self.arrays = description, arrays
        told = description["weights"]
        unet = build_unet(told["unet_config"], lambda name: told["seed"]).double()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
        schedule = SimpleNamespace(alphas_cumprod=(1 - betas).cumprod(0))
        self.sd = StableDiffusion(unet, None, None, None, schedule, "")
        self.weights = params.trainable(unet, "full")
        assert list(self.weights) == arrays["keys"].tolist()
        self.probe = description["expected"]["probe"]
        self.rtol = float(re.search(r"([\de.-]+) for float64", description["tolerance"]["scalars"])[1])

    def input(self, name):
        told = self.description["inputs"][name]
        values = seeded_input(name, told["shape"], told["seed"], told["low"], told["high"])
        return torch.from_numpy(values).double()

    def of_weights(self, name):
        """Parameter name -> input of its shape."""
        told = self.description["inputs"][f"{name}/<parameter key>"]
        return {
            key: torch.from_numpy(
                seeded_input(f"{name}/{key}", weight.shape, told["seed"], told["low"], told["high"])
            ).double()
            for key, weight in self.weights.items()
        }

    def close(self, got, name):
        expected = torch.as_tensor(self.arrays[name])
        torch.testing.assert_close(torch.as_tensor(got), expected, rtol=self.rtol, atol=0)


@pytest.fixture
def case(fixture_file):
    return Case(*fixture_file("mu_sa"))


def test_fisher(case):
    told = case.description["parameters"]
    steps, samples = told["fim_timesteps"], told["fim_samples"]
    fisher = {name: torch.zeros_like(weight) for name, weight in case.weights.items()}
    for i in range(samples):
        noise = torch.cat([case.input(f"sa/fim_noise_{i}_{t}") for t in range(steps)])
        x0, text = case.input(f"sa/fim_latents_{i}"), case.input(f"sa/fim_text_{i}")
        sum_gradients(case.sd, x0, text, torch.arange(steps), noise, chunk=3)
        add_squares(fisher, case.weights, 1 / samples)
    case.close(torch.stack([values.sum() for values in fisher.values()]), "fim_sum")
    case.close(torch.stack([values.max() for values in fisher.values()]), "fim_max")
    case.close(fisher[case.probe], "fim_probe")


def test_losses_and_gradient(case):
    told = case.description["parameters"]
    reference = {name: weight.detach().clone() for name, weight in case.weights.items()}
    for name, delta in case.of_weights("sa/delta").items():
        case.weights[name].data.add_(delta)
    total = 0.0
    parts = {"forget": ("surrogate", 1.0), "replay": ("replay", told["gamma"])}
    for (name, (images, factor)), draw in zip(parts.items(), case.description["draws"], strict=True):
        t, noise = torch.tensor(draw["timesteps"]), case.input(draw["noise"])
        x = case.sd.add_noise(case.input(f"sa/{images}_latents"), noise, t)
        text = case.input(f"sa/text_{name}").expand(len(t), -1, -1)
        loss = F.mse_loss(eps(case.sd.unet, x, t, text), noise)
        (factor * loss).backward()
        case.close(loss.detach(), f"loss_{name}")
        total += factor * loss.detach()
    ewc = add_ewc(case.weights, reference, case.of_weights("sa/fisher"), told["lmbda"])
    case.close(ewc, "loss_ewc")
    case.close(total + ewc, "loss_total")
    case.close(torch.stack([w.grad.abs().sum() for w in case.weights.values()]), "grad_abs_sum")
    case.close(case.weights[case.probe].grad, "grad_probe")


def test_every_array_is_compared(case):
    assert set(case.arrays.files) == {
        *("keys", "fim_sum", "fim_max", "fim_probe"),
        *("loss_forget", "loss_replay", "loss_ewc", "loss_total", "grad_abs_sum", "grad_probe"),
    }
