"""Second instances of Diff-QuickFix and HiRM: another text encoder, other words, counts and options.

Each function takes the stored description, changes it in place and returns the arrays, computed in float64
from complete forward passes and second formulas.
"""

import copy

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.parity.instances.drawn import drawn
from tests.parity.stand_in import TextModel

LENGTH, START, END = 13, 30, 31


def table(texts):
    """Token ids of prompts, one a word whatever its case."""
    words = sorted({word for text in texts for word in text.lower().split()})
    ids = {text: [START, *(words.index(word) for word in text.lower().split())] for text in texts}
    return {text: row + [END] * (LENGTH - len(row)) for text, row in ids.items()}


def other_encoder(d, seed, layers, texts):
    """Puts an encoder of 24 channels into the description; -> it, and the prompts' ids."""
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "projection_dim": 24}
    ends = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": END, "vocab_size": END + 1}
    d["text_encoder"]["config"] |= sizes | ends | {"max_position_embeddings": LENGTH}
    d["text_encoder"]["config"]["num_hidden_layers"] = layers
    state = CLIPTextModel(CLIPTextConfig(**d["text_encoder"]["config"])).state_dict()
    d["text_encoder"]["weights"] |= {"seed": seed, "shapes": {n: [*w.shape] for n, w in state.items()}}
    d["token_ids"] = table(texts)
    return TextModel(d).text_encoder, lambda said: torch.tensor([d["token_ids"][text] for text in said])


def told(d, arrays):
    d["arrays"] = {name: {"shape": [*array.shape], "dtype": "float32"} for name, array in arrays.items()}
    return {name: array.detach().float() for name, array in arrays.items()}


def around_projection(encoder, ids, layer):
    """What enters and leaves `out_proj` in a whole forward pass."""
    seen, module = [], encoder.get_submodule(f"encoder.layers.{layer}.self_attn.out_proj")
    hook = module.register_forward_hook(lambda _, given, output: seen.extend((given[0], output)))
    last = encoder(ids)[0]
    hook.remove()
    return *seen, last


def captions(words, kind):
    small = words.replace("A", "a", 1) if words[0] == "A" else words
    starts = ("A photo of", "An image of", "A picture of") if kind == "augmented" else ()
    return [words, *(f"{start} {small}" for start in starts)]


@torch.no_grad()
def mu_diff_quickfix(d):
    pairs = [("A sea", "art"), ("van gogh", "sea"), ("rust", "Any old art")]
    rules = {  # pairs, captions, tokens, layer, lamb
        "short": ([("rust", "old painting of rust")], "bare", "all", 2, 0.2),
        "several": (pairs, "augmented", "last", 1, 0.03),
        "early": (pairs[:2], "augmented", "all", 0, 0.07),
    }
    d["cases"] = {}
    for name, (chosen, kind, *others) in rules.items():
        said = [
            dict(zip(("concept", "anchor"), pair))
            | {f"{side}_captions": captions(words, kind) for side, words in zip(("concept", "anchor"), pair)}
            for pair in chosen
        ]
        about = {"pairs": said, "captions": kind} | dict(zip(("tokens", "layer", "lamb"), others))
        d["cases"][name] = about | {"embedded_prompts": ["rust", "any sea"]}
    matched = {
        name: [p for pair in about["pairs"] for p in zip(pair["concept_captions"], pair["anchor_captions"])]
        for name, about in d["cases"].items()
    }
    texts = ["rust", "any sea", *(text for said in matched.values() for pair in said for text in pair)]
    encoder, ids = other_encoder(d, 9, 3, texts)
    arrays = {}
    for name, about in d["cases"].items():
        module = encoder.get_submodule(f"encoder.layers.{about['layer']}.self_attn.out_proj")
        K, Q = [], []
        for pair in matched[name]:
            k, q = around_projection(encoder, ids(pair), about["layer"])[0]
            i, j = (len(text.split()) for text in pair)
            for r in range(LENGTH - i if about["tokens"] == "all" else 1):
                K.append(k[i + r])
                Q.append(q[min(j + r, LENGTH - 1)])
        K, Q = torch.stack(K), torch.stack(Q)
        about["rows"] = len(K)
        for form in ("with_bias", "without_bias"):
            V = module(Q) if form == "with_bias" else module(Q) - module.bias
            left = torch.cat([K, about["lamb"] ** 0.5 * torch.eye(24).double()])
            right = torch.cat([V, about["lamb"] ** 0.5 * module.weight.T])
            edited = copy.deepcopy(encoder)
            weight = edited.get_parameter(f"encoder.layers.{about['layer']}.self_attn.out_proj.weight")
            weight.copy_(torch.linalg.lstsq(left, right).solution.T)
            arrays[f"{name}:{form}:weight"] = weight
            arrays[f"{name}:{form}:embeddings"] = edited(ids(about["embedded_prompts"]))[0]
    return told(d, arrays)


def mu_hirm(d):
    d |= {"epochs": 4, "embedded_prompts": ["rust sea", "any old sea"]}
    d["optimizer"] |= {"lr": 5e-3, "betas": [0.8, 0.95], "eps": 1e-5, "weight_decay": 0.1}
    d["supervised"]["module"] = "encoder.layers.1.self_attn.out_proj"
    noise = {"name": "mu_hirm.other", "shape": [LENGTH, 24], "seed": 3, "low": -0.5, "high": 2.0}
    per_token = {"target": "per_token", "noise": noise, "coefficient": 7.0}
    d["cases"] = {
        "single": {"prompts": ["sea"], "target": "joint", "noise": noise, "coefficient": 30.0},
        "three": {"prompts": ["sea", "rust sea", "any old sea"]} | per_token,
        "sent": {
            "prompts": ["sea", "rust"],
            "target": "semantic",
            "super_concept": "any",
            "coefficient": 0.5,
        },
    }
    texts = {"any", *d["embedded_prompts"], *(t for case in d["cases"].values() for t in case["prompts"])}
    plain, ids = other_encoder(d, 4, 2, sorted(texts))
    arrays = {"unedited:embeddings": plain(ids(d["embedded_prompts"]))[0]}
    for name, about in d["cases"].items():
        encoder = copy.deepcopy(plain)
        weights = {n: encoder.get_parameter(n).requires_grad_() for n in d["trained"]}
        if about["target"] == "semantic":
            v = 0.5 * around_projection(plain, ids(["any"]), 1)[1][0]
        else:
            u = drawn(noise["name"], noise)
            squares = u.square().sum() if about["target"] == "joint" else u.square().sum(1, keepdim=True)
            v = about["coefficient"] * u / squares.sqrt()
        rule = {key: value for key, value in d["optimizer"].items() if key != "name"}
        optimizer, losses = torch.optim.AdamW(weights.values(), **rule), []
        for _ in range(d["epochs"]):
            h = around_projection(encoder, ids(about["prompts"]), 1)[1]
            losses.append((h - v).square().sum() / h.numel())
            grads = torch.autograd.grad(losses[-1], [*weights.values()])
            if len(losses) == 1:
                arrays |= {f"{name}:target": v, f"{name}:h_start": h}
                first = dict(zip(weights, grads))
            for weight, grad in zip(weights.values(), grads):
                weight.grad = grad
            optimizer.step()
        kept = [n for n in weights if not n.endswith("k_proj.bias")]
        arrays |= {f"{name}:grad:{n}": first[n] for n in kept if name != "single"}
        arrays |= {f"{name}:final:{n}": weights[n] for n in kept if name != "three"}
        arrays[f"{name}:loss"] = torch.stack(losses)
        arrays[f"{name}:embeddings"] = encoder(ids(d["embedded_prompts"]))[0]
    return told(d, arrays)
