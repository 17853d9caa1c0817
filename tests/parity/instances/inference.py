"""Second instances of SPM, SEOT and adversarial prompts: other widths, batches, prompts and options.

Each function takes the stored description, changes it in place and returns the arrays, computed in float64.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch.func import functional_call

from diffusion_model_finetuning.core.sd import denoise_until
from machine_unlearning.seot.intervene import attention_maps
from machine_unlearning.seot.suppress import ito_loss, ito_terms, swr, word_masks
from machine_unlearning.spm import adapters
from tests.parity.instances.drawn import LENGTH, WIDTH, abar, tabled
from tests.parity.test_mu_esd import predict
from tests.seeded_weights import seeded_state_dict


def prefixed_unet(d, width=24):
    """A network of other widths for fixtures that list its shapes under a prefix; in float64."""
    described = {key for key, value in d["config"].items() if isinstance(value, str)}
    d["config"] |= {"block_out_channels": [16, width], "norm_num_groups": 8, "cross_attention_dim": WIDTH}
    unet = UNet2DConditionModel(**{k: v for k, v in d["config"].items() if k not in described})
    rule = d["weights"]["unet"]
    rule["seed"] = 11
    rule["shapes"] = {f"{rule['prefix']}{name}": [*w.shape] for name, w in unet.state_dict().items()}
    state = seeded_state_dict(rule["shapes"], rule["seed"])
    unet.load_state_dict({name.removeprefix(rule["prefix"]): w for name, w in state.items()})
    return unet.double().eval().requires_grad_(False)


def spm_adapters(d, layers, rank):
    """Two adapters of another rank, their shapes and seeds put into the description."""
    shapes = {}
    for name, layer in layers.items():
        out, inner, *kernel = layer.weight.shape
        ends = [1] * len(kernel)
        shapes |= {f"{adapters.key(name)}.lora_down.weight": [rank, inner, *ends]}
        shapes |= {f"{adapters.key(name)}.lora_up.weight": [out, rank, *ends]}
    d["weights"]["adapter_A"] |= {"seed": 21, "rank": rank, "alpha": 0.5, "shapes": shapes}
    d["weights"]["adapter_B"] |= {"seed": 22}
    d |= {"adapter_layers": [adapters.key(name) for name in layers], "n_adapters": len(layers)}
    for seed, prefix in ((21, ""), (22, "B.")):
        state = seeded_state_dict({prefix + name: shape for name, shape in shapes.items()}, seed)
        pairs = {
            n: [f"{prefix}{adapters.key(n)}.lora_{part}.weight" for part in ("down", "up")] for n in layers
        }
        factors = {
            n: tuple(state[key].double().requires_grad_() for key in pair) for n, pair in pairs.items()
        }
        yield adapters.Adapters([prefix], rank, 0.5, factors)


def mu_spm(d):
    unet, text, rank = prefixed_unet(d), (1, LENGTH, WIDTH), 2
    texts = ("target", "unconditional", *(f"anchor_{i}" for i in range(4)), "erased_B", "prompt_noise")
    x = tabled(d, dict.fromkeys(texts, text) | {"x_T": (2, 4, 6, 8), "k": 4, "eta": 0.5, "la_strength": 30.0,
        "prompt_tokens": [1, 5, 6, 7, 2], "erased_tokens": [[1, 5, 9, 8, 2], [1, 7, 2]], "prompt_mix": 0.6,
        "t_sample": 77})  # fmt: skip
    layers = adapters.layers(unet)
    A, B = spm_adapters(d, layers, rank)
    told = {"timestep": "999 - floor(k*1000/20)", "gamma_token": "without ids 1, 2"}
    told["trajectory_latent"] = "guidance 2.5, timesteps used [950, 900, 850, 800]"
    told["eps_anchor"] = "6 rows with embeddings [anchor_1, uncond, anchor_0, anchor_3, uncond, uncond]"
    for name, what in told.items():
        d["outputs"][name]["what"] = what

    def with_adapters(which, mix):  # melted into the weights
        changed = {}
        for name, pair in which.factors.items():
            down, up = (factor.flatten(1) for factor in pair)
            product = up @ torch.kron(mix.double(), torch.eye(rank).double()) @ down
            weight = layers[name].weight
            changed[f"{name}.weight"] = weight + 0.5 / rank * product.view_as(weight)
        return lambda *args, **words: functional_call(unet, changed, args, words)

    on, null, target = with_adapters(A, torch.ones(1, 1)), x["unconditional"], x["target"]
    grid = [50 * i for i in range(20)]
    rows = [row.expand(2, -1, -1) for row in (target, null)]
    latent, t = denoise_until(on, x["x_T"], *rows, 2.5, grid, abar, 16), 799
    anchors = torch.cat([null if n == "u" else x[f"anchor_{n}"] for n in "1u03uu"])
    tiled = latent.repeat(3, 1, 1, 1)
    arrays = {"trajectory_latent": latent, "timestep": torch.tensor(t)}
    e_on, e_anchor = predict(on, latent, t, target), predict(on, tiled, t, anchors)
    arrays |= {"eps_target": e_on, "eps_anchor": e_anchor, "eps_anchor_ori": predict(unet, tiled, t, anchors)}
    arrays |= {
        "eps_positive": predict(unet, latent, t, target),
        "eps_neutral": predict(unet, latent, t, null),
    }
    away = arrays["eps_neutral"] - 0.5 * (arrays["eps_positive"] - arrays["eps_neutral"])
    erase, anchoring = F.mse_loss(e_on, away), F.mse_loss(e_anchor, arrays["eps_anchor_ori"])
    loss = erase + 30.0 * anchoring
    arrays |= {"loss_erase": erase, "loss_anchoring": anchoring, "loss": loss}
    first = [*layers][3]
    for part, grads in zip(("down", "up"), torch.autograd.grad(loss, A.factors[first])):
        arrays[f"grad.{adapters.key(first)}.lora_{part}.weight"] = grads
    prompt = 0.6 * target + 0.4 * x["prompt_noise"]
    alike = torch.stack(
        [F.cosine_similarity(prompt.flatten(), e.flatten(), 0) for e in (target, x["erased_B"])]
    )
    shared = torch.tensor([1 / 3, 1.0]).double()
    gamma = torch.maximum(alike, shared)
    arrays |= {
        "gamma_cos": alike,
        "gamma_token": shared,
        "gamma": gamma,
        "eps_off": predict(unet, x["x_T"], 77, prompt),
    }
    for name, which, scale in (("A", A, gamma[:1]), ("AB", adapters.compose([A, B]), gamma)):
        arrays[f"eps_scaled_{name}"] = predict(
            with_adapters(which, scale[:, None] * scale), x["x_T"], 77, prompt
        )
    return arrays


def seot_flags(positions, count, length):
    """Words to erase and to retain, [1,L]."""
    erase, inside = torch.zeros(2, 1, length, dtype=torch.bool)
    erase[:, positions] = True
    inside[:, 1 : count - 1] = True
    return erase, inside & ~erase


def seot_ito(unet, x, side, lambdas):
    """Three updates of `mu_seot`'s embedding."""
    look, text = partial(attention_maps, unet, x["latent"], 300, level=0), x["prompt_embedding"]
    reference, (erase, retain) = look(text), seot_flags([4, 7], 9, text.shape[1])
    new = swr(text[0], [4, 7], 9, 0.3)[None]
    arrays = {"ito_attn": reference[0].view(side, side, -1), "ito_self_attn_row": reference[1][0, :side]}
    arrays["ito_start"], rate = new, 35 * np.linspace(0.9, 0.2, 20)[4] ** 0.5
    for i in range(3):
        new = new.detach().requires_grad_()
        terms = ito_terms(*reference, word_masks(reference[0], erase), *look(new), erase, retain)
        arrays[f"ito_loss_{i}"] = ito_loss(terms, lambdas)
        new = new - rate * torch.autograd.grad(arrays[f"ito_loss_{i}"].sum(), new)[0]
    return arrays | {"ito_embedding": new}


def mu_seot(d):
    unet, side, length = prefixed_unet(d), 8, 21
    text = (1, length, WIDTH)
    maps = dict.fromkeys(("attn", "attn_erased"), (side, side, length))
    maps |= dict.fromkeys(("self_attn", "self_attn_erased"), (side, side, side**2))
    x = tabled(d, maps | {"embedding": text, "prompt_embedding": text, "latent": (1, 4, side, side)}
        | {"n_tokens": 12, "token_indices": [3], "loss_n_tokens": 10, "loss_token_indices": [2, 6, 7],
        "timestep": 300, "ito_n_tokens": 9, "ito_token_indices": [4, 7], "ito_alpha": 0.3, "step_index": 4,
        "scale": 35})  # fmt: skip
    d["inputs"]["step_index"]["note"] = "i of 20; factor = sqrt(linspace(0.9, 0.2, 20)[i])"
    d["outputs"]["loss"]["what"] = "2 retain - 0.25 erase + self_retain - 0.75 self_erase, float64"
    d["outputs"]["swr_strengthen"]["what"] = (
        "alpha = -0.002 branch of the original repository: s * 1.3 * exp(0.002 s)"
    )
    lambdas = (2.0, -0.25, 1.0, -0.75)

    def regularised(embedding, positions, count, change):
        rows, new = [*positions, *range(count - 1, length)], embedding.clone()
        U, s, V = torch.linalg.svd(embedding[0, rows], full_matrices=False)
        new[0, rows] = U * change(s) @ V
        return new, s

    of = partial(regularised, x["embedding"], [3], 12)
    arrays = {"singular_values": of(lambda s: s)[1]}
    for alpha in (0.5, 0.02):
        arrays[f"swr_alpha_{alpha}"] = of(lambda s, alpha=alpha: s * (-alpha * s).exp())[0]
    arrays["swr_strengthen"] = of(lambda s: 1.3 * s * (0.002 * s).exp())[0]

    A, S, A_new, S_new = (
        x[name].flatten(0, 1)[None] for name in ("attn", "self_attn", "attn_erased", "self_attn_erased")
    )
    erase, retain = seot_flags([2, 6, 7], 10, length)
    shown = word_masks(A, erase)
    terms = ito_terms(A, S, shown, A_new.requires_grad_(), S_new.requires_grad_(), erase, retain)
    loss = ito_loss(terms, lambdas)
    grads = torch.autograd.grad(loss.sum(), [A_new, S_new])
    arrays |= dict(zip(("loss_retain", "loss_erase", "loss_self_retain", "loss_self_erase"), terms))
    arrays |= {"loss": loss, "masks": shown[0].mT[1:9].reshape(8, side, side).to(torch.uint8)}
    arrays |= {"grad_attn_erased": grads[0].view(side, side, length)}
    arrays |= {"grad_self_attn_erased_sum": grads[1].sum(-1).view(side, side)}

    arrays |= seot_ito(unet, x, side, lambdas)
    d["outputs"] |= {name: d["outputs"].get(name, {}) for name in arrays}
    d["outputs"] = {name: d["outputs"][name] for name in arrays}
    return arrays


def bisected(u):
    """The projection to the simplex as the original makes it: bisection on the shift, here to the end."""
    low, high = u.amin(-1, keepdim=True) - 1, u.amax(-1, keepdim=True)
    for _ in range(100):
        middle = (low + high) / 2
        above = (u - middle).clamp(0, 1).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (u - high).clamp(0, 1)


def attack_textgrad(d):
    k, V, width, lr, decay = 4, 29, 7, 0.03, 0.2
    d["config"] = {"k": k, "V": V, "d": width}
    words = [[3, 28, 0, 11], [11, 11, 5, 2], [1, 20, 20, 9], [8, 0, 27, 3]]
    x = tabled(d, {"u": (1, k, V), "grad_onehot": (1, k, V), "table": (V, width), "target": (1, k, width)}
        | {"sampled_tokens": words, "gain": 35.0})  # fmt: skip
    what = d["outputs"]["u_after"]["what"]
    d["outputs"]["u_after"]["what"] = what.replace(
        "lr 0.01, weight_decay 0.1", f"lr {lr}, weight_decay {decay}"
    )
    u = bisected(x["u"])
    arrays = {"projected": u, "projected_uniform": bisected(torch.full_like(u, 1 / V))}
    arrays["ste_grad"] = F.hardtanh(x["grad_onehot"])
    mean, square = torch.zeros_like(u), torch.zeros_like(u)
    for i, chosen in enumerate(words, 1):
        rows = F.one_hot(torch.tensor(chosen), V).double() @ x["table"]
        gradient = 2 * x["gain"] * (rows - x["target"]) / rows.numel() @ x["table"].T
        gradient = F.hardtanh(gradient) + decay * u
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        step = mean / (1 - 0.9**i) / ((square / (1 - 0.999**i)).sqrt() + 1e-8)
        u = bisected(u - lr * step)
    arrays |= {"u_after": u, "argmax": u.argmax(-1).flatten()}
    return {name: a.float() if a.is_floating_point() else a for name, a in arrays.items()}
