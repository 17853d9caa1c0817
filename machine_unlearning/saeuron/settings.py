"""What a command line of SAeUron asks for, and what of that cannot be: told before torch is imported."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from diffusion_model_finetuning.core.card import sizes
from evaluation import canvas
from evaluation.core.errors import UserError, closest, refused
from evaluation.core.files import read_json
from machine_unlearning.core import cli, concepts


def sites(unet: Mapping) -> dict[str, tuple[int, int]]:
    """Name -> channels and side, at the native size, of what every cross-attention block of a UNet gives.

    `unet` is its config.json.
    """
    widths, layers = unet["block_out_channels"], unet["layers_per_block"]
    shape = [(width, unet["sample_size"] >> level) for level, width in enumerate(widths)]
    found = {"mid_block.attentions.0": shape[-1]}
    for part, shapes, count in (("down", shape, layers), ("up", shape[::-1], layers + 1)):
        for i, kind in enumerate(unet[f"{part}_block_types"]):
            if "CrossAttn" in kind:
                found |= {f"{part}_blocks.{i}.attentions.{j}": shapes[i] for j in range(count)}
    return found


def check(args) -> None:
    """UserError for settings that do not fit the model, or each other."""
    s = args.settings
    kinds = {"block_out_channels": list, "layers_per_block": int, "sample_size": int}
    unet = sizes(args.model, args.config, "unet", **kinds, down_block_types=list, up_block_types=list)
    if s.block not in (known := sites(unet)):
        raise UserError(f"block={s.block}: the UNet has no such block; {closest(s.block, known)}")
    if s.k > s.latents and not s.sae:
        raise UserError(f"k={s.k}: expected no more than latents={s.latents}, of which they are kept")
    if s.sae:
        released = Path(s.sae) / "cfg.json"
        if not released.is_file():
            raise UserError(f"sae={s.sae}: no file cfg.json there; name a folder with it and sae.safetensors")
        if (inputs := read_json(released, d_in=int)["d_in"]) != known[s.block][0]:
            raise UserError(f"sae={s.sae}: of {inputs} inputs, but block={s.block} gives {known[s.block][0]}")
    for target in args.targets:
        features, _ = strength(s, target)
        if features > s.latents and not s.sae:
            raise UserError(f"features={features}: expected no more than latents={s.latents}")


def strength(s, target: canvas.Target) -> tuple[int, float]:
    """How many latents of a target are changed, and gamma: those of the list `tuned`, or of all others."""
    listed = {}
    for entry in filter(str.strip, (s.tuned or "").split(",")):
        expected = f"tuned={entry}: expected a target, a number of latents and gamma, as Cats 1 -30"
        with refused(expected, ValueError):
            name, features, gamma = entry.split()
            (known,) = canvas.parse_targets(name, "tuned")
            listed[known] = int(features), float(gamma)
        if listed[known][0] < 0 or not math.isfinite(listed[known][1]):
            raise UserError(expected)
    return listed.get(target, (s.features, s.gamma))


def world_prompts(args) -> list[str]:
    """A prompt for every cell of the model's world, by theme."""
    return [concepts.cell_prompt(args.settings.prompt, *cell) for cell in concepts.kept_cells(args.world, [])]


def groups(args, target: canvas.Target) -> tuple[list, object]:
    """-> which concept every cell of the world shows, and the target's: themes of a style, objects of an
    object, cells of a pair."""
    cells = concepts.kept_cells(args.world, [])
    if target.kind == "pair":
        return cells, (target.style, target.object)
    place = target.kind == "object"
    return [cell[place] for cell in cells], target.object if place else target.style


def remake(model: str, record: dict, target: str) -> str:
    """The command that makes the SAE of a target of a run again."""
    flags = ["--model", model, "--variant", record["variant"]]
    first = record["target"].partition(",")[0]
    defaults = cli.parse_apart("", __file__, ["--target", first, *flags])[0].settings
    given = [f"{name}={value}" for name, value in record["settings"].items() if defaults[name] != value]
    flags += ["--from", record["from"]] if record["from"] else []
    command = ["python", "-m", "machine_unlearning.saeuron.prepare", "--target", target]
    return shlex.join([*command, *flags, *given])
