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
