"""Second instances of the evaluation's fixtures: other sizes, names, counts, seeds and networks.

Each function takes the stored description and changes it in place; the numbers, in it, are float64's.
"""

import numpy as np
import scipy.linalg
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from evaluation.answers.answer_set import Cell
from style_transfer.core import losses, vgg
from style_transfer.stytr2 import model as stytr2
from tests.parity import test_eval_accuracy, test_eval_vgg_loss
from tests.parity.instances.networks import image_spec, narrowed, total
from tests.seeded_weights import seeded_input, seeded_state_dict


def transformer(**arguments):
    """-> a small vision transformer in float64, and its shapes."""
    vit = timm.create_model("vit_base_patch16_224", **arguments).double().eval().requires_grad_(False)
    return vit, {name: [*w.shape] for name, w in vit.state_dict().items()}


def eval_accuracy(d):
    names = {"themes": ["Rust", "Ukiyoe"], "classes": ["Sea", "Trees", "Frogs", "Human", "Cats"]}
    d |= names | {"seeds": [1, 2, 3]}
    d["answer_set"] |= {"image_size_HxW": [30, 21], "seed": 12}
    sizes = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 3, "num_heads": 4}
    told = ", ".join(f"{name}={value}" for name, value in sizes.items())
    d["model"] = f"timm VisionTransformer({told}, num_classes=<len(themes) or len(classes)>)"
    cells = [(t, c, s) for t in d["themes"] for c in d["classes"] for s in d["seeds"]]
    first, inputs = "{}_{}_seed{}.jpg".format(*cells[0]), []
    for theme, label, seed in cells:
        rgb = test_eval_accuracy.draw(d, Cell(theme, label, seed))
        image = Image.fromarray(rgb).resize((48, 48), Image.Resampling.BILINEAR)
        inputs.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 127.5 - 1)
        if (theme, label, seed) == cells[0]:
            d["answer_set"]["check"] = {"file": first, "pixel_sum": int(rgb.astype(int).sum())}
    for number, (task, labels) in enumerate({"style": d["themes"], "class": d["classes"]}.items()):
        vit, shapes = transformer(num_classes=len(labels), **sizes)
        state = seeded_state_dict(shapes, 90 + number)
        state["head.weight"] *= 5
        about = {"files": {f"{task}.pth['model_state_dict']": shapes}, "seed": 90 + number}
        d["tasks"][task]["weights"] = about | {"adjust": "head.weight times 5", "abs_sum": total(state)}
        vit.load_state_dict(state)
        logits, of = vit(torch.stack(inputs)), np.array([labels.index(cell[number]) for cell in cells])
        d["tasks"][task]["logits_first_image"] = logits[0].tolist()
        result = {"acc": {}, "loss": {}, "pred_loss": {}, "misclassified": {}}
        for i, label in enumerate(labels):
            mine = logits[of == i]
            guess, hits = mine.argmax(1), np.float32(0)
            for _ in range(int((guess == i).sum())):
                hits += np.float32(1 / len(mine))
            result["acc"][label] = float(hits)
            result["loss"][label] = -mine.log_softmax(1)[:, i].sum().item()
            result["pred_loss"][label] = mine.softmax(1)[:, i].sum().item()
            result["misclassified"][label] = {name: int((guess == j).sum()) for j, name in enumerate(labels)}
        d["tasks"][task]["result"] = result


def eval_frechet(d):
    d["cases"] = {}
    for name, (many, few, width) in {"one": (90, 40, 5), "two": (33, 70, 12)}.items():
        case, sets = {}, {}
        for side, count, low, high in (("real", many, -1.0, 2.0), ("fake", few, 0.5, 1.5)):
            values = seeded_input(side, (count, width), 8, low, high).astype(float)
            case[side] = {"shape": [count, width], "seed": 8, "low": low, "high": high, "sum": values.sum()}
            sets[side] = values.mean(0), np.cov(values, rowvar=False)
            case[f"trace_{side}"] = np.trace(sets[side][1])
        (m, S), (n, T) = sets.values()
        case["mean_sq"] = ((m - n) ** 2).sum()
        root = np.trace(scipy.linalg.sqrtm(S @ T)).real
        distance = case["mean_sq"] + np.trace(S) + np.trace(T) - 2 * root
        d["cases"][name] = case | dict.fromkeys(
            ("frechet_sqrtm", "frechet_eigvals", "frechet_symmetric"), distance
        )


def eval_vgg_loss(d):
    rule, files = d["weights"], narrowed(d["weights"])
    d["sensitivity_seed_offset"] = 333

    def networks(files):
        network = stytr2.load({name: files[name] for name in stytr2.FILES}).double()
        shapes = files["vgg_normalised.pth"]
        encoder = vgg.Encoder([len(shapes[f"{layer}.bias"]) for layer in (2, 9, 16, 29, 42)])
        encoder.load_state_dict(shapes)
        return encoder.double().requires_grad_(False), network

    def compared(built, output, truth):  # content and style, through StyTr2
        return test_eval_vgg_loss.released(*built, output, truth)

    def images(specs):
        return [test_eval_vgg_loss.image(name, specs[name]).double() for name in ("result", "label")]

    built, kinds = networks(files), ("content_loss", "style_loss")
    shapes, d["cases"] = {"pair": (2, 3, 40, 48), "single": (1, 3, 64, 32)}, {}
    for number, (name, shape) in enumerate(shapes.items()):
        specs = {"result": image_spec("result", *shape, seed=number, low=0.2)}
        specs |= {"label": image_spec("label", *shape, seed=number, high=0.8)}
        x, y = images(specs)
        case = {
            "inputs": specs,
            "compat": compared(built, x, y),
            "compat_arguments_swapped": compared(built, y, x),
        }
        case["compat_result_equals_label(result,result)"] = compared(built, x, x)
        case = {key: dict(zip(kinds, v)) if isinstance(v, list) else v for key, v in case.items()}
        a, b = (built[0](batch) for batch in (x, y))
        moments = [
            [torch.stack([f.mean((2, 3)), (f.var((2, 3)) + 1e-5).sqrt()]) for f in maps] for maps in (a, b)
        ]
        layers = [2 * F.mse_loss(m, n).item() for m, n in zip(*moments)]
        content = sum(losses.content_loss(losses.vgg_features(a), losses.vgg_features(b))) / len(x)
        case["direct"] = {"content_loss": content.item(), "style_loss": sum(layers)}
        case["direct"]["style_loss_per_layer_relu1_1_to_relu5_1"] = layers
        d["cases"][name] = case

    d["sensitivity_inputs"] = {name: image_spec(name, 1, 3, 32, 40, seed=5) for name in ("result", "label")}
    pair = images(d["sensitivity_inputs"])
    d["sensitivity"]["base_content_style"] = compared(built, *pair)
    for name in files:
        drawn = test_eval_vgg_loss.state(rule, name, 333)
        d["sensitivity"][name] = compared(networks(files | {name: drawn}), *pair)
    d["sensitivity"]["vgg layers 44+ (unused)"] = d["sensitivity"]["base_content_style"]

    about = d["aggregation"] = {"input": d["aggregation"]["input"] | {"shape": [7, 5, 3, 4], "seed": 9}}
    about["input"] |= {"low": 2.0, "high": 5.0}
    values = seeded_input("losses", (7, 5, 3, 4), 9, 2.0, 5.0).astype(float)
    about |= {"mean": values.mean(), "repo_theme_mean[1:6]": [*values.mean((1, 2, 3))[1:6]]}
    about |= {"repo_theme_std[0:2]": [*values.std((1, 2, 3))[:2]]}
    about |= {"repo_class_std[4][1:3]": [*values.std((2, 3))[4, 1:3]]}
    deviations = {
        "style": values.std((1, 2, 3)),
        "object": values.std((0, 2, 3)),
        "content_image": values.std(3),
    }
    about["table_std"] = {name: part.mean() for name, part in deviations.items()}


def eval_vit_loss(d):
    sizes = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 12, "num_heads": 3}
    vit, shapes = transformer(num_classes=7, **sizes)
    told = ", ".join(f"{name}={value}" for name, value in sizes.items())
    d["model"]["timm"] = f"VisionTransformer({told}, num_classes=7)"
    state, name = seeded_state_dict(shapes, 14), "style60.pth['model_state_dict']"
    d["weights"] |= {"files": {name: shapes}, "seeds": {name: 14}, "abs_sum_after_gain": {name: total(state)}}
    vit.load_state_dict(state)
    inputs = d["inputs"] = {
        key: image_spec(key, 3, 3, 48, 48, seed=2, high=0.7) for key in ("result", "label")
    }
    x, y = (
        torch.from_numpy(seeded_input(key, spec["shape"], 2, 0.0, 0.7)).double()
        for key, spec in inputs.items()
    )
    numbers = [1, 3, 5, 7, 9, 11]

    def terms(x, y):
        kept = []
        handles = [vit.blocks[i].register_forward_hook(lambda *call: kept.append(call[2])) for i in numbers]
        vit(x), vit(y)
        for handle in handles:
            handle.remove()
        return torch.stack([(a - b).square().mean((1, 2)) for a, b in zip(kept[:6], kept[6:])])

    plain, normal = terms(x, y), terms(2 * x - 1, 2 * y - 1)
    d["expected"] = {
        "style_loss_per_image": plain.sum(0).tolist(),
        "style_loss_image0_per_block": dict(zip(map(str, numbers), plain[:, 0].tolist())),
        "with_classifier_normalisation": normal.sum(0).tolist(),
    }
    d["sensitivity_abs_change"] = {
        "cls_token": 1.0,
        "blocks.2.": 1.0,
        "blocks.11.mlp": 1.0,
        "norm.": 0.0,
        "head.": 0.0,
    }
