"""CA against the original: losses with every mask and target, gradients, AdamW steps, style captions."""

import re

import pytest
import torch

from machine_unlearning.ca import train as ca
from machine_unlearning.ca.prompts import in_style
from machine_unlearning.core import concepts, params
from tests.parity.test_mu_esd import ABAR, build_unet, close, predict
from tests.parity.test_mu_prompts import parse
from tests.seeded_weights import seeded_input


class Case:
    """The fixture's network and inputs; `loss(name)` is one of its losses, with gradients to `weights`."""

    def __init__(self, description, arrays):
        self.description, self.arrays = description, arrays
        self.unet = build_unet(description["unet"]["config"], lambda name: description["weights_seed"])
        self.weights = params.trainable(self.unet, "xattn_kv")
        self.inputs = {
            i["name"].rpartition(".")[2]: torch.from_numpy(
                seeded_input(i["name"], i["shape"], i["seed"], i["low"], i["high"])
            )
            for i in description["inputs"]
        }

    def noisy(self, prefix=""):
        """-> x_t, t, noise of the main inputs or of the regularisation's."""
        latents, noise = self.inputs[prefix + "latents"], self.inputs[prefix + "noise"]
        t = torch.tensor(self.description[prefix + "timesteps"])
        a = ABAR[t].view(-1, 1, 1, 1)
        return a.sqrt() * latents + (1 - a).sqrt() * noise, t, noise

    def mask(self, name):
        ones = torch.ones_like(self.inputs["reg_latents" if name == "reg" else "latents"][:, :1])
        if name != "box":
            return ones
        box, mask = self.description["mask_box"], torch.zeros_like(ones)
        mask[:, :, slice(*box["rows"]), slice(*box["cols"])] = 1
        return mask

    def predict(self, text, prefix=""):
        x, t, _ = self.noisy(prefix)
        return predict(self.unet, x, t, self.inputs[text])

    def loss(self, name):
        if name == "reg":
            return ca.ca_loss(self.predict("reg_emb", "reg_"), self.inputs["reg_noise"], self.mask(name))
        y = self.inputs["noise"] if name == "noise_based" else self.predict("emb_anchor")
        return ca.ca_loss(self.predict("emb_target"), y, self.mask(name))

    def gradients(self, name):
        self.unet.zero_grad()
        self.loss(name).backward()
        norm = torch.stack([w.grad.double().pow(2).sum() for w in self.weights.values()]).sum().sqrt()
        return norm, {key: weight.grad for key, weight in self.weights.items()}


@pytest.fixture
def case(fixture_file):
    return Case(*fixture_file("mu_ca"))


def losses(arrays):
    """Names of the losses whose gradient the fixture has."""
    return [name.partition(".")[2] for name in arrays.files if name.startswith("grad_norm_kv.")]


def test_predictions(case):
    ca.detach_start_token(case.unet)
    close(case.noisy()[0], case.arrays["noisy_latents"], case.description)
    close(case.predict("emb_target").detach(), case.arrays["pred_target"], case.description)
    close(case.predict("emb_anchor").detach(), case.arrays["pred_anchor"], case.description)


def test_losses(case):
    arrays, description = case.arrays, case.description
    for name in losses(arrays):
        close(case.loss(name).detach(), arrays[f"loss.{name}"], description)
    ones, reg = case.loss("ones").detach(), case.loss("reg").detach()
    told = description["expected"]["loss.ablate_plus_reg_compvis"]
    factor = float(re.fullmatch(r"loss.ones \+ (.+)\*loss.reg", told)[1])
    close(ones + factor * reg, arrays["loss.ablate_plus_reg_compvis"], description)
    # an ordinary mean over the channels, where the mask's sum counts one
    channels = case.inputs["reg_latents"].shape[1]
    close(ones + reg / channels, arrays["loss.ablate_plus_prior_diffusers"], description)


def test_gradients(case):
    arrays, description = case.arrays, case.description
    assert set(case.weights) == set(description["trained"])
    for name in losses(arrays):
        close(case.gradients(name)[0], arrays[f"grad_norm_kv_without_token0_detach.{name}"], description)
    ca.detach_start_token(case.unet)
    for name in losses(arrays):
        norm, gradients = case.gradients(name)
        close(norm, arrays[f"grad_norm_kv.{name}"], description)
        stored = [key for key in arrays.files if key.startswith(f"grad.{name}:")]
        for key in stored:
            close(gradients[key.partition(":")[2]], arrays[key], description)


def test_adamw_steps(case):
    key = next(name for name in case.arrays.files if name.startswith("loss_trajectory_adamw_lr"))
    ca.detach_start_token(case.unet)
    optimizer = torch.optim.AdamW(case.weights.values(), float(key.partition("lr")[2]), fused=True)
    seen = []
    for _ in case.arrays[key]:
        loss = case.loss("ones")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    close(torch.tensor(seen, dtype=torch.float64), case.arrays[key], case.description)


def test_every_array_is_compared(case):
    kinds = (
        "loss.",
        "grad_norm_kv.",
        "grad_norm_kv_without_token0_detach.",
        "grad.",
        "loss_trajectory_adamw_lr",
    )
    rest = {name for name in case.arrays.files if not name.startswith(kinds)}
    assert rest == {"noisy_latents", "pred_target", "pred_anchor"}
    named = {name.partition(".")[2] for name in case.arrays.files if name.startswith("loss.")}
    assert named == {*losses(case.arrays), "ablate_plus_reg_compvis", "ablate_plus_prior_diffusers"}


def test_style_captions_of_the_port(fixture_file, tmp_path):
    description, _ = fixture_file("mu_prompts")
    for name, target in description["targets"].items():
        args, expected = parse(ca, name, tmp_path), target["ca"]
        word = concepts.say(args.settings.word, args.targets[0], args.settings.underscores)
        assert word == expected["caption_target_batch_script"]
        assert in_style(expected["example_anchor"], word) == expected["target_prompts"]
