"""Second instances of Semantic Surgery and FIA: other widths, counts, concepts and options.

Each function takes the stored description, changes it in place and returns the arrays, computed in float64.
"""

import numpy as np
import torch

from tests.parity.instances.drawn import WIDTH, drawn, narrow
from tests.parity.test_mu_esd import build_unet, predict


def mu_semantic_surgery(d):
    """Sixteen rows instead of 77, a neutral text, another threshold, and a gate that opens for all."""
    config, length = narrow(d["unet"]["config"]), 16
    names = "start empty plain rust sea towers frame both"
    d |= {"weights_seed": 9, "length": length, "prefix": "other."}
    box = {"shape": [length, WIDTH], "seed": 5, "low": -2, "high": 1}
    d["inputs"] = [{"name": f"other.{name}"} | box for name in names.split()]
    part = {spec["name"].removeprefix("other."): drawn(spec["name"], spec).numpy() for spec in d["inputs"]}
    d["texts"] = {
        "": {"empty": 1}, "an image": {"plain": 1, "empty": 0.2}, "Rust": {"plain": 1, "rust": 0.7},
        "Sea": {"plain": 0.9, "sea": 0.5}, "Towers": {"plain": 1, "towers": 0.6},
        "A Sea image in Rust style.": {"plain": 0.5, "rust": 0.5, "sea": 0.5, "frame": 0.3},
        "A Towers image.": {"plain": 0.5, "towers": 0.5, "frame": 0.6},
        "Rust, Sea": {"plain": 1, "rust": 0.5, "sea": 0.4, "both": 0.1},
        "Rust, Sea, Towers": {"plain": 1, "rust": 0.4, "sea": 0.4, "towers": 0.4, "both": 0.2},
    }  # fmt: skip
    gate = {"neutral": "an image", "gamma": 0.05, "threshold": 0.4, "concepts": ["Rust", "Sea", "Towers"]}
    both, towers = "A Sea image in Rust style.", "A Towers image."
    d["cases"] = {
        "two": gate | {"prompt": both, "beta": -0.4},
        "other": gate | {"prompt": towers, "beta": -0.9},
        "open": gate | {"prompt": towers, "beta": 0.1},
        "pushed": gate | {"prompt": both, "beta": -0.8, "forced": {"strength": 0.3, "active": [1, 0]}},
    }

    def rows(text):
        made = sum(factor * part[name].astype(np.float64) for name, factor in d["texts"][text].items())
        return np.concatenate([part["start"][:1], made[1:]])

    arrays = {}
    for name, c in d["cases"].items():
        prompt, neutral = rows(c["prompt"]), rows(c["neutral"])
        similarities = []
        for concept in c["concepts"]:
            away = rows(concept) - neutral
            lengths = np.linalg.norm(away, axis=1) * np.linalg.norm(prompt, axis=1)
            products = (away * prompt).sum(1)
            similarities.append(sum(p / n for p, n in zip(products[1:], lengths[1:])) / length)
        sigmoid = lambda a, c=c: 1 / (1 + np.exp(-(a + c["beta"]) / c["gamma"]))  # noqa: E731
        seen = [max(sigmoid(a), sigmoid(0)) for a in similarities]
        active = [k for k, rho in enumerate(seen) if rho > c["threshold"]]
        rate = max([rho for rho in seen if rho >= c["threshold"]], default=0.0)
        if "forced" in c:
            rate, active = c["forced"]["strength"], sorted({*active, *c["forced"]["active"]})
        joined = ", ".join(c["concepts"][k] for k in active)
        new = prompt - rate * (rows(joined) - neutral if active else 0 * prompt)
        c["expected"] = {"similarity": similarities, "presence": list(map(sigmoid, similarities))}
        c["expected"] |= {"strength": rate, "active": active, "unchanged": not active}
        arrays[f"{name}:edited"] = new
    latent = {"name": "other.latent", "shape": [1, 4, 6, 8], "seed": 2, "low": -1, "high": 1}
    d["noise_prediction"] = {"cases": ["open"], "timestep": 33, "guidance": 3.0, "latent": latent}
    unet, x = build_unet(config, lambda name: 9).double(), drawn(latent["name"], latent)
    null, text = (torch.from_numpy(e)[None] for e in (rows(""), arrays["open:edited"]))
    u, c = predict(unet, x, 33, null), predict(unet, x, 33, text)
    return arrays | {"open:eps": u + 3.0 * (c - u)}


def fia_norms(d, unet, layers):
    """-> function of a prompt and the halves: u of every observed step by layer, [T,I], in numpy."""
    x, null = (drawn(d[name]["name"], d[name]) for name in ("latents", "null"))

    def norms(prompt, halves):
        text, seen = drawn(d["prompts"][prompt]["name"], d["prompts"][prompt]), {name: [] for name in layers}
        texts = torch.stack([null, text] if halves == "both" else [text])

        def watch(name):
            return lambda module, inputs, output: seen[name].append(inputs[0].flatten(0, 1).numpy())

        handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
        with torch.no_grad():
            for i in range(d["observed_steps"]):
                predict(unet, x[i].expand(len(texts), -1, -1, -1), d["timesteps"][i], texts)
        for handle in handles:
            handle.remove()
        rows = {name: [X / np.linalg.norm(X, axis=1, keepdims=True) for X in Xs] for name, Xs in seen.items()}
        return {name: np.stack([np.linalg.norm(X, axis=0) for X in Xs]) for name, Xs in rows.items()}

    return norms


def top(values, count):
    """True for the largest entries of each row of a matrix."""
    return values.argsort(1).argsort(1) >= values.shape[1] - count


def fia_mask(W, mu, base, sigma, r1, r2):
    """-> S, A and Q of a layer; mu, base, sigma [T,I]."""
    S = np.abs(W) * np.maximum(0, mu - base - sigma)[:, None]
    last = [np.sort(step.flatten())[-max(1, int(r1 * W.size))] for step in S]
    A = S.mean(0) / S.mean(0).max() / 2 + np.mean([step > t for step, t in zip(S, last)], 0) / 2
    Q = top(A, max(1, int(r2 * W.shape[1]))) & top(A.reshape(1, -1), max(1, int(r2 * W.size))).reshape(
        A.shape
    )
    return S, A, Q & (A > 0)


def mu_fia(d):
    config = narrow(d["unet"]["config"])
    box = {"shape": [7, WIDTH], "seed": 6, "low": -3, "high": 1}
    words = "sea_a sea_b sea_c a b red blue plain"
    d["prompts"] = {name: {"name": f"other.{name}"} | box for name in words.split()}
    d["null"] = {"name": "other.null"} | box
    d["latents"] = {"name": "other.latents", "shape": [3, 4, 6, 8], "seed": 4, "low": -1, "high": 2}
    d |= {"weights_seed": 12, "timesteps": [777, 333, 111], "observed_steps": 2, "r1": 0.1}
    unet = build_unet(config, lambda name: 12).double()
    layers = {name: unet.get_submodule(name) for name in d["layers"]}
    norms, arrays, flags = fia_norms(d, unet, layers), {}, {}
    d["concepts"] = {
        "Sea": {"concept": ["sea_a", "sea_b", "sea_c"], "base": ["a", "b"], "r2": 0.02},
        "Red": {"concept": ["red"], "base": ["plain", "a", "b"], "r2": 0.2},
        "Blue": {"concept": ["blue", "a"], "base": ["plain", "b"], "r2": 0.1},
    }
    sides = {}
    for name, halves in (("Sea", "both"), ("Red", "both"), ("Red", "conditional"), ("Blue", "both")):
        c = d["concepts"][name]
        for side in ("concept", "base"):
            sides[side] = [norms(prompt, halves) for prompt in c[side]]
        counts = c.setdefault("flagged", {}).setdefault(halves, {})
        for layer, module in layers.items():
            W, key = module.weight.numpy(), lambda what: f"{name}.{halves}:{what}:{layer}"  # noqa: B023
            mean, std = (
                {s: f(np.stack([u[layer] for u in sides[s]]), 0) for s in sides} for f in (np.mean, np.std)
            )
            S, A, Q = fia_mask(W, mean["concept"], mean["base"], std["base"], d["r1"], c["r2"])
            for side in sides:
                arrays |= {key(f"{side}_mean"): mean[side], key(f"{side}_std"): std[side]}
            arrays |= {key("saliency_last"): S[-1], key("sensitivity"): A, key("mask"): np.packbits(Q)}
            counts[layer] = int(Q.sum())
            if halves == "both":
                flags[name, layer] = Q
    d["fusions"] = {
        "two": {"concepts": ["Red", "Blue"], "alpha": 0.5},
        "all": {"concepts": ["Sea", "Red", "Blue"], "alpha": 0.9},
    }
    total = sum(module.weight.numel() for module in layers.values())
    for name, fusion in d["fusions"].items():
        sums = {layer: sum(flags[c, layer].astype(int) for c in fusion["concepts"]) for layer in layers}
        threshold = {"two": 1, "all": 3}[name]
        pruned = {layer: (s > 0) & (s < threshold) for layer, s in sums.items()}
        count = sum(int(mask.sum()) for mask in pruned.values())
        spared = sum(int((s >= threshold).sum()) for s in sums.values())
        fusion |= {
            "threshold": threshold,
            "pruned": count,
            "kept_as_agnostic": spared,
            "pruned_share": count / total,
        }
        arrays |= {f"fused.{name}:mask:{layer}": np.packbits(mask) for layer, mask in pruned.items()}
    d["concept_prune"] = {"concept": "Blue", "ratio": 0.15, "shares": [0.0, 0.4, 0.5], "flagged_total": {}}
    return arrays | concept_prune(d["concept_prune"], d["concepts"]["Blue"], norms, layers)


def concept_prune(rule, concept, norms, layers):
    arrays, counts = {}, dict.fromkeys(("0", "0.4", "0.5"), 0)
    sides = {side: [norms(prompt, "both") for prompt in concept[side]] for side in ("concept", "base")}
    for layer, module in layers.items():
        W = np.abs(module.weight.numpy())
        u = {side: np.sqrt(sum(n[layer] ** 2 for n in all_norms)) for side, all_norms in sides.items()}
        steps = [
            top(W * c, int(rule["ratio"] * W.shape[1])) & (W * c > W * b)
            for c, b in zip(u["concept"], u["base"])
        ]
        arrays |= {f"concept_prune:{side}_norm:{layer}": value for side, value in u.items()}
        arrays[f"concept_prune:per_step:{layer}"] = np.packbits(
            np.stack(steps).reshape(len(steps), -1), axis=1
        )
        for share in counts:
            mask = np.mean(steps, 0) > float(share)
            counts[share] += int(mask.sum())
            arrays[f"concept_prune.{share}:mask:{layer}"] = np.packbits(mask)
    rule["flagged_total"] = counts
    return arrays
