"""The command line that all methods share.

    python -m machine_unlearning.METHOD.train --target Sketch --model checkpoints/mini --out RUN lr=1e-5

`config.yaml` beside `train.py` has three variants: `canvas` (the paper's algorithm), `published` (what the
official code effectively did) and `mini` (the miniature, chosen by itself for that model). Each may have
sections `all`, `style`, `object` and `pair`; the later variants state only what differs from `canvas`.
`limits` says between what numbers, or of what words, a setting of the method's own may be, `prompts` what a
text may name in braces. All that a command line says is checked here, before anything slow is imported.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_model_finetuning.core.card import read_card
from evaluation import canvas, protocol
from evaluation.answers.answer_set import forgotten
from evaluation.core import flags
from evaluation.core.config import check_kinds, check_limits, override
from evaluation.core.errors import UserError, closest
from evaluation.core.record import ACTING, RECORD, WEIGHTS, Request, read_record, requests
from machine_unlearning.core import concepts

METHODS = Path(__file__).parents[1]
VARIANTS = ("canvas", "published", "mini")
KEEP = ("all", "targets", "none")  # which images of a run's answer set stay once they are judged


def parse(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """Parses a method's command line.

    `doc` and `train_file` are the caller's __doc__ and __file__. The result has the flags and `targets`
    (list[canvas.Target]), `earlier` (what the runs that `--from` leads to were asked, in their order),
    `forgotten` (the targets of these, too: neither kept nor put in a target's place), `settings`
    (DictConfig), `world` (protocol of names the model knows).
    Raises UserError for an unknown target or setting, or a kind of target the method has no settings for.
    """
    parser = _parser(doc)
    parser.add_argument("--target", required=True, help="Sketch, Cats, Sketch+Cats, or several with commas")
    parser.add_argument("--out", type=flags.new_folder, required=True, help="run folder to write")
    return _settled(_placed(parser.parse_intermixed_args(argv)), train_file)


def parse_apart(doc: str, train_file: str, argv=None) -> list[argparse.Namespace]:
    """What `parse` gives for trainings of one target each; the command line is that of a `prepare.py`.

    The targets are those of `--target`, or without it of the model's protocol.
    """
    parser = _parser(doc)
    parser.add_argument("--target", help="those to be unlearned, with commas (default: the protocol's)")
    args = _placed(parser.parse_intermixed_args(argv))
    targets = args.target.split(",") if args.target else args.world.targets
    return [_settled(argparse.Namespace(**vars(args) | {"target": name}), train_file) for name in targets]


def shared_prompts(trainings: list[argparse.Namespace], prompts_of) -> list[tuple[DictConfig, list[str]]]:
    """The lists `prompts_of(args)` that two of the trainings have in common, each with its settings."""
    groups = {}
    for args in trainings:
        groups.setdefault(tuple(prompts_of(args)), []).append(args.settings)
    return [(settings[0], list(prompts)) for prompts, settings in groups.items() if len(settings) > 1]


def _placed(args: argparse.Namespace) -> argparse.Namespace:
    """The flags, with variant, data and protocol that suit the model."""
    card = read_card(args.model, args.config)
    args.variant = args.variant or card.get("variant", "canvas")
    if args.variant not in VARIANTS:
        raise UserError(f"--model {args.model}: its card names an unknown variant {args.variant!r:.60}")
    args.data = args.data or card.get("data")
    args.world = _world(card.get("protocol", "canvas"), args.variant)
    return args


def _settled(args: argparse.Namespace, train_file: str) -> argparse.Namespace:
    """The flags, with targets and settings."""
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
    check_settings(OmegaConf.to_container(args.settings), config, args.targets)
    args.earlier = earlier_requests(args.start) if args.start else []
    args.forgotten = canvas.parse_targets(",".join([*(r.target for r in args.earlier), args.target]))
    return args


def _parser(doc: str) -> argparse.ArgumentParser:
    """With the flags of train.py and prepare.py."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_model(parser)
    parser.add_argument("--from", dest="start", metavar="RUN", help="go on from this finished run")
    parser.add_argument(
        "--data",
        type=flags.data_set,
        help="data set, for methods that read images: folder {theme}/{object}/{n}.jpg, or mini",
    )
    parser.add_argument("--variant", choices=VARIANTS, help="default: canvas, or mini for the miniature")
    flags.add_seed(parser)
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of config.yaml to change")
    return parser


def check_settings(settings: dict, config: DictConfig, targets: list[canvas.Target]) -> None:
    """UserError for a setting of a method that is of another kind than in all of its `config`, as null or a
    list, or outside its limits."""
    limits, prompts = config.get("limits", {}), config.get("prompts", {})
    plain = OmegaConf.to_container(config)
    sections = [part for variant in VARIANTS for part in (plain.get(variant) or {}).values() if part]
    examples = {key: [part[key] for part in sections if key in part] for key in settings}
    for key, known in examples.items():
        if {*map(type, known)} == {type(None)}:
            known += [limits[key][0] if key in limits else ""]
    check_kinds(settings, {key: known for key, known in examples.items() if known})
    check_limits(settings, limits)
    check_prompts(settings, prompts, targets)


def check_prompts(settings: dict, names: DictConfig, targets: list[canvas.Target]) -> None:
    """UserError for a prompt, or one of a list, with braces other than the `names` that its setting may have.

    Where {style} is one, they stand for the targets: what one of them has not cannot be named, either.
    """
    for key, value in settings.items():
        if key not in names or value is None:
            continue
        known = names[key].split()
        if "{style}" in known:
            known = [name for name in known if all(getattr(target, name[1:-1]) for target in targets)]
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or set("{}") & set(re.sub("|".join(known), "", text)):
                braces = f"{' or '.join(known)} and no other braces" if known else "no braces"
                raise UserError(f"{key}={text}: expected a text with {braces}")


def parse_with_images(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """`parse` for a method that reads images of the data set."""
    args = parse(doc, train_file, argv)
    if not args.data:
        raise UserError(
            "--data is missing: this method reads images; name the data set's folder, "
            "{theme}/{object}/{number}.jpg, or mini for the miniature's"
        )
    return args


def parse_with_substitutes(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """`parse_with_images` for a method that puts other images in the place of those to forget."""
    args = parse_with_images(doc, train_file, argv)
    for cell in concepts.forget_cells(args.world, args.targets):
        concepts.substitute(args.world, args.forgotten, *cell)
    return args


def intervenes(method: str) -> bool:
    """Whether a method acts while images are sampled, so that weights alone do not hold its result.

    Its name may be read from a record, and becomes part of a module's: so it is a plain word.
    """
    return method.isidentifier() and (METHODS / method / "intervene.py").exists()


def acting(run: str | Path, record: dict) -> dict[str, Path]:
    """The methods that act while a run's images are sampled, its own and those of the runs that it went on
    from, in the order of their first requests: each with the folder of what it acts by."""
    run = Path(run)
    methods = dict.fromkeys(request.method for request in requests(record, run / RECORD))
    return {m: run if m == record["method"] else run / ACTING / m for m in methods if intervenes(m)}


def earlier_requests(folder: str) -> list[Request]:
    """What the run in a folder and those that it went on from were asked to forget, the first request first.

    UserError if no run can go on from it.
    """
    record = read_record(folder)
    if record.get("foreign"):
        raise UserError(f"--from {folder}: was made elsewhere, so there are no weights to go on from")
    if not (Path(folder) / WEIGHTS).exists():
        raise UserError(f"--from {folder}: no {WEIGHTS}; remove the folder and run {record['method']} again")
    forgotten(record, Path(folder) / RECORD)
    return requests(record)


def _world(name: str, variant: str) -> protocol.Protocol:
    """The protocol of that name, whose names the model knows; for `published` the published one of these."""
    world = protocol.load(name)
    if variant != "published":
        return world
    published = protocol.load("canvas-published")
    return replace(published, themes=world.themes, objects=world.objects, targets=())


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


def recorded_settings(run: str | Path, record: dict) -> dict:
    """Of a run whose method acts while sampling. UserError if the record was changed to what it cannot be."""
    config, settings = OmegaConf.load(METHODS / record["method"] / "config.yaml"), record["settings"]
    try:
        if lacking := [key for key in config.canvas.all if key not in settings]:
            raise UserError(f"{lacking[0]} is missing")
        check_settings(settings, config, canvas.parse_targets(record["target"], "target"))
    except UserError as error:
        raise UserError(f"{Path(run) / RECORD}: {error}; remove the run and make it again") from error
    return settings
