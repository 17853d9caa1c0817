"""Second instances of CompVis networks and of style transfer: narrower, other images and options.

Each function takes the stored description, changes it in place and returns the arrays, computed in float64.
"""

import importlib
import json

import numpy as np
import torch

from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.sd import denoise_until
from style_transfer.blip.clip import ContextText
from style_transfer.blip.qformer import QFormer
from style_transfer.core import vgg
from style_transfer.ie_contrast.contrast import projectors
from style_transfer.ie_contrast.train import ie_contrast_losses
from style_transfer.stytr2.train import stytr2_losses
from tests.parity import compvis, test_compvis_vae, test_st_cases, test_st_expected
from tests.parity.instances.drawn import abar, tabled
from tests.parity.test_mu_esd import predict
from tests.seeded_weights import seeded_array, seeded_input

# channels of the released networks -> of these; 448, 960 and 1472 are sums of widths, 1536 is 3 x 512
NARROW = {64: 8, 128: 12, 256: 24, 512: 48, 448: 44, 960: 92, 1472: 140, 1536: 144, 2048: 40}


def compvis_network(d, part, network, to_compvis):
    """Puts a network's shapes into the description; -> it, in float64, with the weights that these mean."""
    rule = d["weights"][part]
    shapes = {f"{rule['prefix']}{name}": [*w.shape] for name, w in to_compvis(network.state_dict()).items()}
    rule |= {"shapes": shapes, "seed": 31}
    from_compvis = getattr(formats, f"{part}_from_compvis")
    network.load_state_dict(from_compvis(compvis.weights(d, part)))
    return network.double().requires_grad_(False)


def compvis_unet(d, config=None):
    config = d["config"] if config is None else config
    config |= {"num_res_blocks": 2, "num_heads": 8, "context_dim": 20, "channel_mult": [1, 2, 2]}
    config["attention_resolutions"] = [2]
    unet = compvis_network(d, "unet", compvis.build_unet(config), formats.unet_to_compvis)
    if "timesteps" not in d["inputs"]:
        return unet
    shapes = {"x": (3, 4, 8, 12), "context": (3, 7, 20), "timesteps": [1, 999, 400]}
    x = tabled(d, shapes | ({"c_concat": (3, 4, 8, 12)} if "c_concat" in d["inputs"] else {}))
    whole = torch.cat([x[name] for name in ("x", "c_concat") if name in x], dim=1)
    return {"eps": predict(unet, whole, x["timesteps"], x["context"]).float()}


def compvis_unet_ip2p(d):
    arrays = compvis_unet(d)
    plain = json.loads(json.dumps(d))
    plain["config"]["in_channels"] = 4
    del plain["inputs"]["c_concat"]
    return arrays | {"eps_inflated": compvis_unet(plain)["eps"]}


def compvis_ddim(d):
    unet = compvis_unet(d, d["config"]["unet"])
    x = tabled(
        d, {"x_T": (3, 4, 8, 12), "cond": (3, 7, 20), "uncond": (3, 7, 20), "steps": 6, "guidance": 2.0}
    )
    grid = [1 + 166 * i for i in range(7)]  # CompVis walks seven steps if asked for six
    walked = [
        denoise_until(unet, x["x_T"], x["cond"], x["uncond"], 2.0, grid, abar, i) for i in range(6, -1, -1)
    ]
    return {
        "timesteps": np.array(grid[::-1]),
        "alphas": abar[grid].float(),
        "alphas_prev": abar[[0, *grid[:-1]]],
        "trajectory": torch.stack([x["x_T"], *walked]).float(),
        "latent": walked[-1].float(),
    }


def compvis_vae(d):
    d["config"]["ddconfig"] |= {"ch_mult": [1, 1, 2], "num_res_blocks": 2}
    vae = compvis_network(d, "vae", test_compvis_vae.build(d["config"]), formats.vae_to_compvis)
    x = tabled(d, {"image": (2, 3, 16, 24), "z": (3, 4, 6, 4)})
    posterior = vae.encode(x["image"]).latent_dist
    arrays = {"moments": posterior.parameters, "mean": posterior.mean, "std": posterior.std}
    return {name: a.float() for name, a in (arrays | {"decoded": vae.decode(x["z"]).sample}).items()}


def compvis_ema(d):
    rule = d["weights"]["start"]
    rule |= {"shapes": {"model.a.weight": [3, 2], "model.b.c.bias": [5]}, "seed": 6}
    d["inputs"]["updates"]["value"], d["config"]["decay"] = 7, 0.3
    arrays = {"model_ema.decay": np.float32(0.3), "model_ema.num_updates": np.int32(7)}
    for key, shape in rule["shapes"].items():
        name = key.removeprefix("model.")
        average = seeded_array(key, shape, 6).astype(float)
        for i in range(7):
            average -= (1 - min(0.3, (2 + i) / (11 + i))) * (
                average - seeded_array(f"step{i}.{name}", shape, 6)
            )
        arrays[f"model_ema.{name.replace('.', '')}"] = average.astype(np.float32)
    return arrays


def total(state):
    return sum(tensor.double().abs().sum().item() for tensor in state.values())


def narrowed(rule):
    """Gives the files of a `weights` table fewer channels and other seeds; -> their state dicts."""
    files = {}
    for number, (name, shapes) in enumerate(rule["files"].items()):
        rule["files"][name] = {key: [NARROW.get(n, n) for n in shape] for key, shape in shapes.items()}
        rule["seeds"][name] = 40 + number
        files[name] = test_st_cases.scaled(rule["files"][name], 40 + number, rule["gain"][name])
        rule["abs_sum_after_gain"][name] = total(files[name])
    return files


def image_spec(name, *shape, seed, low=0.0, high=1.0):
    values = seeded_input(name, shape, seed, low, high)
    return {"shape": shape, "seed": seed, "low": low, "high": high, "sum": values.sum(dtype=np.float64)}


def cases(d, name, sizes):
    """Other batches and sizes of CAST, IE-ContraAST or StyTr2; -> arrays, files, network."""
    files = narrowed(d["weights"])
    module, stages_of = test_st_cases.METHODS[name]
    network = module.load({file: files[file] for file in module.FILES}).double()
    arrays, features, stored, d["cases"] = {}, [], d["cases"], {}
    network.decoder.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    for number, (content, style) in enumerate(sizes):
        inputs = {"content": image_spec("content", *content, seed=50 + number)}
        d["cases"][f"case{number}"] = {
            "inputs": inputs | {"style": image_spec("style", *style, seed=60 + number)}
        }
        images = [batch.double() for batch in test_st_cases.build_images(d["cases"][f"case{number}"])]
        made = network.stylise(*images)
        stages = stages_of(
            features[-1], made, lambda steps, images=images: network.stylise(*images, steps=steps)
        )
        arrays |= {f"case{number}/{stage}": value for stage, value in stages.items()}
    d["cases"] |= {"practice": stored["training"]} if "training" in stored else {}
    return {n: a if a.dtype == torch.uint8 else a.float() for n, a in arrays.items()}, files, network


def st_cast(d):
    return cases(d, "st_cast", [((1, 3, 40, 32), (1, 3, 56, 33)), ((3, 3, 50, 41), (3, 3, 32, 40))])[0]


def st_ie_contrast(d):
    sizes = [((3, 3, 40, 32), (3, 3, 32, 56))]
    arrays, files, network = cases(d, "st_ie_contrast", sizes)
    case = d["cases"]["practice"]
    case["inputs"] = {
        name: image_spec(name, 3, 3, 32, 40, seed=7) for name in ("train_content", "train_style")
    }
    heads = projectors(network.encoder.widths)
    for name, head in heads.items():
        head.load_state_dict(files[f"(training only) proj_{name}"])
    content, style = (batch[:3].double() for batch in test_st_cases.build_images(case))
    with torch.no_grad():
        made, terms = ie_contrast_losses(network, heads.double(), content, style)
    case["losses"] = {name: term.item() for name, term in terms.items()}
    return arrays | {"practice/output": made.float()}


def st_stytr2(d):
    arrays, files, network = cases(d, "st_stytr2", [((3, 3, 48, 40), (3, 3, 40, 64)), ((1, 3, 64, 64),) * 2])
    encoder = vgg.Encoder(tuple(NARROW[width] for width in vgg.WIDTHS))
    encoder.load_state_dict(files["vgg_normalised.pth"])
    case = d["cases"]["case1"]
    with torch.no_grad():
        images = [batch.double() for batch in test_st_cases.build_images(case)]
        terms = stytr2_losses(network, encoder.double().requires_grad_(False), *images)
    case["losses"] = {name: term.item() for name, term in terms.items()}
    return arrays


def expected(d, images, options, drop=""):
    """Other widths, images and options of one of the methods of test_st_expected.py."""
    method, d["seed"] = d["method"], 70
    for file, shapes in d["files"].items():
        shapes = {
            k: [NARROW.get(n, n) for n in shape] for k, shape in shapes.items() if not drop or drop not in k
        }
        d["files"][file] = shapes
    for name, shape in images.items():
        d["inputs"][name] |= {"shape": shape, "seed": 71}
    states = {file: test_st_expected.weights(d, file) for file in d["files"]}
    d["weights"]["state_abs_sum"] = {file: total(state) for file, state in states.items()}
    network = importlib.import_module(f"style_transfer.{method}.model").load(states).double()
    content, style = (
        torch.from_numpy(seeded_input(i["name"], i["shape"], i["seed"], i["low"], i["high"])).double()
        for i in (d["inputs"]["content"], d["inputs"]["style"])
    )
    stages, d["stages"], d["expected"], arrays = list(d["stages"]), {}, {}, {}
    for number, (given, dtype) in enumerate(options):
        words, name = test_st_expected.options_of(given), f"made{number}"
        made = network.stylise(content, style, **words)
        about = {"options": given, "shape": made.shape, "compute_dtype": dtype}
        d["expected"][name] = about | {"suggested_atol": 2e-4 * made.std().item()}
        arrays[name] = made.to(getattr(torch, dtype))
        for stage, value in test_st_expected.stages_of(method, network, content, style, dict(words)).items():
            prefix = "" if number == 0 and stage in stages else f"{name}__"
            if prefix and method != "mast":
                continue
            d["stages"][prefix + stage] = [len(value), value.shape[1] - 1, *value.shape[2:]]
            arrays[f"stage_{prefix}{stage}"] = value[:, :-1].to(arrays[name].dtype)
    return arrays


def st_sanet(d):
    images = {"content": (2, 3, 40, 56), "style": (2, 3, 32, 48)}
    return expected(d, images, [({"steps": 1}, "float32"), ({"steps": 3}, "float64")])


def st_mccnet(d):
    images = {"content": (2, 3, 40, 56), "style": (2, 3, 32, 48)}
    return expected(d, images, [({}, "float64"), ({"alpha": 0.7}, "float32"), ({"alpha": 0.1}, "float32")])


def st_adaattn(d):
    images = {"content": (2, 3, 48, 32), "style": (2, 3, 32, 80)}
    return expected(d, images, [({"max_sample_3": 50}, "float32"), ({}, "float32")])


def st_artflow(d):
    images = {"content": (2, 3, 32, 40), "style": (2, 3, 40, 24)}
    return expected(d, images, [({"op": "wct"}, "float32")], drop=".flows.7.")


def st_mast(d):
    images = {"content": (1, 3, 40, 56), "style": (1, 3, 48, 32)}
    chains = {"layers": "r31,r21", "dim_thresh": 128}, {"layers": "r21", "dim_thresh": 10}
    return expected(d, images, [(chain, "float64") for chain in chains])


def st_blip(d):
    tower = {"width": 16, "hidden": 24, "depth": 3, "heads": 2, "patch": 4, "positions": 26, "eps": 1e-6}
    sizes = {"width": 24, "hidden": 40, "depth": 5, "heads": 2, "queries": 3, "vocabulary": 90}
    sizes |= {"positions": 30, "projection": 96, "eps": 1e-12, "frequency": 3, "tower": tower}
    text = {"width": 24, "hidden": 32, "depth": 1, "heads": 3, "vocabulary": 80, "positions": 14, "eps": 1e-5}
    models = {"qformer/model": QFormer(**sizes), "text_encoder/model": ContextText(**text)}
    vision = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 20, "patch_size": 4}
    bert = {"hidden_size": 24, "num_attention_heads": 2, "cross_attention_frequency": 3}
    d["config"]["qformer"] |= {"vision_config": vision, "qformer_config": bert, "num_query_tokens": 3}
    d["config"]["text_encoder"] |= {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "max_position_embeddings": 14,
    }
    d["options"] |= {"ctx_begin_pos": 4, "num_query_tokens": 3}
    d["inputs"]["reference_pixel_values"] |= {"shape": (3, 3, 20, 20), "seed": 2}
    drawn = "floor(seeded_input('{}',({},{}),seed)*{})+{}"
    ids = {"subject_ids": (3, 6, 80, 7), "prompt_ids": (3, 11, 70, 3), "uncond_ids": (2, 14, 70, 3)}
    rest = {"subject_ids": "; attention mask all ones except row 0 column 4 = 0, row 0 column 5 = 0"}
    got = {}
    for number, (name, (rows, length, words, first)) in enumerate(ids.items()):
        d["inputs"][name] = {"rule": drawn.format(name, *ids[name]) + rest.get(name, ""), "seed": number}
        values = torch.from_numpy(seeded_input(name, (rows, length), number)) * words
        got[name] = values.floor().long() + first
    for number, (name, model) in enumerate(models.items()):
        shapes = {key: [*w.shape] for key, w in model.state_dict().items()}
        d["weights"]["files"][name], d["weights"]["seeds"][name] = shapes, 80 + number
        state = test_st_cases.scaled(shapes, 80 + number, d["weights"]["gain"][name])
        model.load_state_dict(state)
        model.double().eval().requires_grad_(False)
    qformer, encoder = models.values()
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[0, 4:] = 0
    images = torch.from_numpy(seeded_input("reference_pixel_values", (3, 3, 20, 20), 2, -1.5, 1.5)).double()
    queries = qformer(images, got["subject_ids"], mask)
    arrays = {"vision": qformer.visual_encoder(images), "query_embeds": queries}
    arrays |= {
        "text_embeds": encoder(got["prompt_ids"], queries, 4),
        "uncond_embeds": encoder(got["uncond_ids"]),
    }
    return {name: array.float() for name, array in arrays.items()}
