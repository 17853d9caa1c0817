"""Second instances of SPEED and RECE: other widths, lengths, prompts, counts and options.

Expected values by second formulas: SPEED's copies are made one by one, and its projector is a matrix.
"""

import torch

from machine_unlearning.speed.train import invariants
from tests.parity.instances.drawn import LENGTH, WIDTH, drawn, narrow
from tests.parity.test_mu_esd import build_unet

BOX = {"shape": (LENGTH, WIDTH), "low": -1, "high": 1}


def prompts(d, method, ends):
    """Gives the file prompts of these names, with their last content tokens -> name: rows."""
    d["inputs"] = [{"name": f"{method}.{name}", "seed": 12} | BOX for name in ends]
    d["prompts"] = {n: {"embedding": f"{method}.{n}", "last_content_index": i} for n, i in ends.items()}
    return {n: drawn(f"{method}.{n}", spec) for n, spec in zip(ends, d["inputs"], strict=True)}


def mu_speed(d):
    keep = [f"keep_{i}" for i in range(7)]
    ends = {"empty": 0, "art": 2, "one": 3, "two": 6, "three": 1} | {n: i + 2 for i, n in enumerate(keep)}
    x = prompts(d, "mu_speed", ends)
    d |= {"length": LENGTH, "weights_seed": 4}
    d["kmeans"]["init_rows"], d["noise"]["seed"] = [2, 10, 5], 6
    K = invariants(x["empty"], [2, 10, 5])
    shared = {"retain_scale": 0.4, "lamb": 0.0, "disable_filter": False}
    d["cases"] = {
        "rows": shared
        | {"tokens": "all", "params": "KV", "targets": ["one", "two"], "anchors": ["art", "empty"]},
        "token": shared | {"tokens": "last", "params": "K", "targets": ["three"], "anchors": ["art"]},
        "unfiltered": shared | {"tokens": "all", "params": "V", "targets": ["two"], "anchors": ["one"]},
    }
    d["cases"]["rows"] |= {"retain": keep[:3], "copies": 4, "chunk": 5, "threshold": 0.25}
    d["cases"]["token"] |= {"retain": keep, "copies": 3, "chunk": 2, "threshold": 0.2, "lamb": 0.3}
    d["cases"]["unfiltered"] |= {"retain": keep[3:], "copies": 1, "chunk": 128, "threshold": 0.3}
    d["cases"]["unfiltered"] |= {"disable_filter": True, "retain_scale": 2.0}
    weights = build_unet(narrow(d["unet"]["config"]), lambda name: 4).double().state_dict()
    arrays = {"invariants": K.T}
    for label, case in d["cases"].items():
        facts = {
            fact: case.setdefault(f"expected_{fact}", {}) for fact in ("kept", "rows", "null_dimensions")
        }
        last = case["tokens"] == "last"
        rows = {n: text[ends[n]][None] if last else text[1:] for n, text in x.items()}
        pairs = [(rows[c], rows[a]) for c, a in zip(case["targets"], case["anchors"], strict=True)]
        T, A = (sum(pair[i].T @ pair[0] for pair in pairs) / len(pairs) for i in range(2))
        R, eye = torch.cat([rows[name] for name in case["retain"]]), torch.eye(WIDTH).double()
        spec = BOX | {"shape": (case["copies"], *R.shape), "seed": 6}
        noise = drawn("mu_speed.noise", spec | {k: d["noise"][k] for k in ("low", "high")})
        for name, W in weights.items():
            if not name.endswith(tuple(f"attn2.to_{p.lower()}.weight" for p in case["params"])):
                continue
            E, v = W @ (A - T) @ (eye + T).inverse(), torch.linalg.svd(W, full_matrices=False).Vh[-1]
            norms = (R @ E.T).norm(dim=1)
            kept = [i for i in range(len(R)) if case["disable_filter"] or norms[i] > norms.mean()]
            Z = [*R[kept]]
            for first in range(0, len(kept), case["chunk"]):
                part = kept[first : first + case["chunk"]]
                copies = [R[i] + (noise[k, i] @ v) * v for k in range(case["copies"]) for i in part]
                moved = torch.stack([(E @ copy).norm() for copy in copies])
                Z += [copy for copy, length in zip(copies, moved, strict=True) if length > moved.mean()]
            Z = torch.stack(Z)
            left, values, _ = torch.linalg.svd(Z.T @ Z / len(Z))
            P = left[:, values < case["threshold"]] @ left[:, values < case["threshold"]].T
            M = (T @ P + case["retain_scale"] * eye).inverse()
            inner = K.T @ P @ M @ K + case["lamb"] * torch.eye(4).double()
            Q = eye - M @ K @ inner.inverse() @ K.T @ P
            arrays[f"{label}:{name}"] = W + W @ (A - T) @ P @ Q @ M
            facts["kept"][name], facts["rows"][name] = kept, len(Z)
            facts["null_dimensions"][name] = int((values < case["threshold"]).sum())
    return {name: array.float() for name, array in arrays.items()}
