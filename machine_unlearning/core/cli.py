"""The command line that all methods share.

    python -m machine_unlearning.METHOD.train --target Sketch --model checkpoints/mini --out RUN lr=1e-5

`config.yaml` beside `train.py` has three variants: `canvas` (the paper's algorithm), `published` (what the
official code effectively did) and `mini` (the miniature, chosen by itself for that model). Each may have
sections `all`, `style`, `object` and `pair`; the later variants state only what differs from `canvas`.
`limits` says between what numbers, or of what words, a setting of the method's own may be.
"""

import argparse
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_model_finetuning.core.card import read_card
from evaluation import canvas, protocol
from evaluation.core import flags
from evaluation.core.config import check_settings, override
from evaluation.core.errors import UserError, closest

VARIANTS = ("canvas", "published", "mini")


def parse(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """Parses a method's command line.

    `doc` and `train_file` are the caller's __doc__ and __file__. The result has the flags and `targets`
    (list[canvas.Target]), `settings` (DictConfig), `world` (protocol whose names the model knows).
    Raises UserError for an unknown target or setting, or a kind of target the method has no settings for.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="Sketch, Cats, Sketch+Cats, or several with commas")
    parser.add_argument("--model", default="checkpoints/mini", help="diffusers folder or CompVis file")
    parser.add_argument(
        "--config", help="for a file: folder with its sizes and tokenizer (default: SD 1.5's, built in)"
    )
    parser.add_argument("--out", type=flags.new_path, required=True, help="run folder to write")
    parser.add_argument("--from", dest="start", metavar="RUN", help="go on from this finished run")
    parser.add_argument(
        "--data", help="data set, for methods that read images: folder {theme}/{object}/{n}.jpg, or mini"
    )
    parser.add_argument("--variant", choices=VARIANTS, help="default: canvas, or mini for the miniature")
    flags.add_seed(parser)
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of config.yaml to change")
    args = parser.parse_intermixed_args(argv)
    card = read_card(args.model, args.config)
    args.variant = args.variant or card.get("variant", "canvas")
    args.data = args.data or card.get("data")
    args.world = protocol.load(
        "canvas-published" if args.variant == "published" else card.get("protocol", "canvas")
    )
    args.targets = canvas.parse_targets(args.target)
    for target in args.targets:
        _known_to(args.world, target)
    config = OmegaConf.load(Path(train_file).parent / "config.yaml")
    kinds = dict.fromkeys(target.kind for target in args.targets)
    chosen, *others = [_choose(config, args.variant, kind, train_file) for kind in kinds]
    if any(other != chosen for other in others):
        raise UserError(
            f"--target {args.target}: {' and '.join(kinds)} have different settings here; "
            "unlearn one kind, then the other with --from"
        )
    args.settings = override(chosen, args.overrides)
    check_settings(OmegaConf.to_container(args.settings), config.get("limits", {}))
    return args


def _known_to(world: protocol.Protocol, target: canvas.Target) -> None:
    for name, known in ((target.style, world.themes), (target.object, world.objects)):
        if name and name not in known:
            raise UserError(f"--target {target}: the model does not know {name}; {closest(name, known)}")


def _choose(config: DictConfig, variant: str, kind: str, train_file: str) -> DictConfig:
    """The settings of one variant and kind of target: canvas first, what the variant states over it."""
    names = ("canvas",) if variant == "canvas" else ("canvas", variant)
    sections = [config[name] for name in names if config.get(name)]
    if not any(kind in section for section in sections):
        method = Path(train_file).parent.name
        raise UserError(f"--target: {method} has no settings for a {kind} (variant {variant})")
    parts = [section[part] for section in sections for part in ("all", kind) if section.get(part)]
    return OmegaConf.merge(*parts)
