"""FMN against the original: noised latents, loss, gradients; the preset's prompts, positions, token order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffusion_model_finetuning.core.sd import StableDiffusion, eps
from diffusion_model_finetuning.scratch import train_tokenizer
from machine_unlearning.core import attention, cli, params
from machine_unlearning.fmn import train
from machine_unlearning.fmn.invert import initial, spell
from tests.seeded_weights import seeded_input, seeded_state_dict

SCHEDULE = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture
def case(fixture_file):
    description, arrays = fixture_file("mu_fmn")
    unet = UNet2DConditionModel(**description["unet"]["config"])
    shapes = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    unet.load_state_dict(seeded_state_dict(shapes, description["weights_seed"]))
    sd = StableDiffusion(unet.eval(), None, None, None, SCHEDULE, "fixture")
    inputs = {
        i["name"].rpartition(".")[2]: torch.from_numpy(
            seeded_input(i["name"], i["shape"], i["seed"], i["low"], i["high"])
        )
        for i in description["inputs"]
    }
    return description, arrays, sd, inputs


def close(got, expected, description):
    expected = torch.as_tensor(np.asarray(expected))
    got = torch.as_tensor(got, dtype=expected.dtype)
    torch.testing.assert_close(got, expected, **description["suggested_tolerance"])


def noised(description, sd, inputs):
    t = torch.tensor(description["timesteps"])
    return sd.add_noise(inputs["latents"], inputs["noise"], t), t


def resteer(description, sd, inputs, positions):
    """-> maps by layer, loss, and the gradients of all weights that receive one."""
    x, t = noised(description, sd, inputs)
    weights = params.trainable(sd.unet, "full")
    sd.unet.zero_grad()
    with attention.recorded(sd.unet, lambda name: name.endswith("attn2")) as maps:
        eps(sd.unet, x, t, inputs["emb"].expand(len(x), -1, -1))
    loss = train.fmn_loss(maps.values(), positions)
    loss.backward()
    return maps, loss.detach(), {n: w.grad for n, w in weights.items() if w.grad is not None}


def test_every_array_is_compared(case):
    description, arrays, *_ = case
    of_sets = ("loss.", "layer_sq_sums.", "grad.", "grad_norm_attn2.")
    sets = description["concept_positions"]
    for name in arrays.files:
        kind = next((prefix for prefix in of_sets if name.startswith(prefix)), None)
        assert name == "noisy_latents" or name.removeprefix(kind).partition(":")[0] in sets, name


def test_noised_latents(case):
    description, arrays, sd, inputs = case
    close(noised(description, sd, inputs)[0], arrays["noisy_latents"], description)


def test_loss_and_gradients(case):
    description, arrays, sd, inputs = case
    for name, positions in description["concept_positions"].items():
        maps, loss, gradients = resteer(description, sd, inputs, positions)
        assert set(maps) == set(description["layer_order"])
        sums = [maps[layer][..., positions].detach().pow(2).sum() for layer in description["layer_order"]]
        close(torch.stack(sums), arrays[f"layer_sq_sums.{name}"], description)
        close(loss, arrays[f"loss.{name}"], description)

        cross = {n: g for n, g in gradients.items() if params.SCOPES["xattn"](n)}
        norm = torch.stack([g.double().pow(2).sum() for g in cross.values()]).sum().sqrt()
        close(norm, arrays[f"grad_norm_attn2.{name}"], description)
        without = set(params.trainable(sd.unet, "xattn")) - set(cross)
        assert without == set(description["attn2_parameters_without_gradient"])
        for key in arrays.files:
            if key.startswith(f"grad.{name}:"):
                close(gradients[key.partition(":")[2]], arrays[key], description)


def test_prompts_positions_and_order_of_the_preset(fixture_file, tmp_path):
    description, _ = fixture_file("mu_prompts")
    for name, target in description["targets"].items():
        expected = target["fmn"]
        words = f"--target {name} --model {tmp_path} --out {tmp_path / 'run'} --variant published"
        args = cli.parse(train.__doc__, train.__file__, words.split())
        s = args.settings
        names = [f"<s{i + 1}>" for i in range(s.tokens)]
        assert s.invert_prompt.format(tokens="".join(names)) == expected["stage1"]
        assert s.prompt.format(tokens="".join(names)) == expected["stage2"]
        order = train.assigned(s.tokens, s.order)
        assert {n: names[i] for n, i in zip(names, order, strict=True)} == expected["embedding_assignment"]

        # a tokenizer that makes one token of each of the template's words and pads with end-of-text
        tokenizer = train_tokenizer([s.prompt.format(tokens=""), expected["initializer"]], 77)
        table = torch.nn.Embedding(len(tokenizer), 3)
        encoder = SimpleNamespace(get_input_embeddings=lambda table=table: table)
        sd = StableDiffusion(SimpleNamespace(device="cpu"), None, encoder, tokenizer, SCHEDULE, "fixture")
        known = table.weight[tokenizer(expected["initializer"])["input_ids"]]
        start = initial(sd, args.targets[0], s.tokens, s.start, torch.Generator())
        assert torch.equal(start[: len(known)], known)
        ids, places = spell(sd, s.prompt, s.tokens)
        steered = train.resteered(ids.tolist(), places.tolist(), tokenizer.eos_token_id, s.pooler)
        assert steered == expected["concept_positions_all_eot"]
