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


def least_squares(W, rows, values, lamb):
    """W' that minimises |rows W'^T - values|^2 + lamb |W' - W|^2, by QR."""
    A = torch.cat([rows, lamb**0.5 * torch.eye(W.shape[1]).double()])
    return torch.linalg.lstsq(A, torch.cat([values, lamb**0.5 * W.T]), driver="gels").solution.T


def step(W, pairs, kept, lamb, a, b, technique="replace"):
    """UCE's edit: rows of every pair to the other's values, kept rows to their own."""
    rows, values = [b**0.5 * kept], [b**0.5 * kept @ W.T]
    for edit, guide in pairs:
        new, old = guide @ W.T, edit @ W.T
        if technique == "tensor":
            new = new - old * (old * new).sum() / (old * old).sum()
        rows, values = [*rows, a**0.5 * edit], [*values, a**0.5 * new]
    return least_squares(W, torch.cat(rows), torch.cat(values), lamb)


def derivation(c, current, originals, kind, scale, guide):
    """The stacked least squares that a derived embedding solves."""
    now, before, eye = torch.cat(current), torch.cat(originals) @ c.T, torch.eye(WIDTH).double()
    A, B, root = [now], [before], scale**0.5
    if "embedding" in kind or kind in ("zero", "target"):
        A.append(root * eye)
        B.append(root * {"zero": torch.zeros_like(c.T), "target": guide.T}.get(kind, c.T))
    if "output" in kind:
        A.append(root * now)
        B.append(root * now @ c.T)
    return torch.linalg.lstsq(torch.cat(A), torch.cat(B), driver="gels").solution.T


def mu_rece(d):
    ends = {"empty": 0, "art": 1, "one": 4, "two": 2, "three": 6, "keep": 5}
    x = prompts(d, "mu_rece", ends)
    d["weights_seed"] = 5
    uce = {"edit": ["one", "two", "three"], "guide": ["art", "empty", "art"], "preserve": ["empty", "keep"]}
    uce |= {"lamb": 0.7, "erase_scale": 0.6, "preserve_scale": 0.2, "technique": "tensor"}
    kinds = ("zero", "target", "output", "embedding", "output+embedding")
    d["derive"] = {f"some_{kind}": {"kind": kind, "scale": 0.3, "concept": "three"} for kind in kinds}
    d["derive"]["some_target"]["target"] = "art"
    shared = {"technique": "replace", "lamb": 0.4, "erase_scale": 0.9, "preserve_scale": 0.3}
    d["runs"] = {
        "three": shared
        | {"concepts": ["one", "two", "three"], "guides": ["empty", "art", "empty"], "epochs": 3},
        "pulled": shared | {"concepts": ["two"], "guides": ["art"], "epochs": 1, "technique": "tensor"},
    }
    d["runs"]["three"] |= {"preserve": ["keep"], "derive": {"kind": "zero", "scale": 0.02}}
    d["runs"]["pulled"] |= {"preserve": ["keep", "empty"], "derive": {"kind": "target", "scale": 0.5}}
    d["uce"] = uce
    weights = build_unet(narrow(d["unet"]["config"]), lambda name: 5).double().state_dict()
    names = [name for name in weights if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    originals = [weights[name] for name in names]

    def aligned(edit, guide):
        reach = LENGTH - max(ends[edit], ends[guide])
        return [x[name][ends[name] : ends[name] + reach] for name in (edit, guide)]

    pairs = [aligned(*names) for names in zip(uce["edit"], uce["guide"], strict=True)]
    kept = torch.cat([x[name] for name in uce["preserve"]])
    start = [step(W, pairs, kept, 0.7, 0.6, 0.2, "tensor") for W in originals]
    arrays = {f"uce:{name}": W for name, W in zip(names, start, strict=True)}
    for name, o in d["derive"].items():
        arrays[f"derived:{name}"] = derivation(x["three"], start, originals, o["kind"], o["scale"], x["art"])
    for run, o in d["runs"].items():
        current, kept = start, torch.cat([x[name] for name in o["preserve"]])
        for epoch in range(1, o["epochs"] + 1):
            options = (current, originals, *o["derive"].values())
            texts = [(x[c], x[g]) for c, g in zip(o["concepts"], o["guides"], strict=True)]
            pairs = [(derivation(c, *options, g), g) for c, g in texts]
            current = [step(W, pairs, kept, 0.4, 0.9, 0.3, o["technique"]) for W in current]
            arrays |= {f"{run}.epoch{epoch}:{n}": W for n, W in zip(names, current, strict=True)}
    return arrays
