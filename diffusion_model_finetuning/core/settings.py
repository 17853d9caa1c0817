"""Command line and settings of the trainings, read and checked before anything slow is imported.

A settings file is one of `settings/`, or the user's own of the form of `mini.yaml`; every value of either is
checked for its kind and its LIMITS.
"""

import argparse
import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_model_finetuning.core import states
from evaluation import canvas
from evaluation.core import flags
from evaluation.core.config import check_limits, fits, override, read_settings
from evaluation.core.errors import UserError, closest, refused

SETTINGS = Path(__file__).parent.parent / "settings"
OPTIONAL = ("scratch", "without")  # all other settings of mini.yaml must be there
MAY_BE_NULL = ("card", "min_snr", "without")
LIMITS = {  # beside those of every training
    "per_object": (0, 100_000),
    "clip": (1e-6, math.inf),
    "warmup": (0, 1),
    "ema": (0, 1),
    "caption_dropout": (0, 1),
    "dropout": (0, 1 / 3),  # three shares are dropped
    "min_snr": (1e-6, math.inf),
    "text_encoder": ("train", "frozen"),
    "precision": ("no", "fp16", "bf16"),
    "log_every": (1, math.inf),
    "save_every": (1, math.inf),
    "keep": (1, math.inf),
    "validate.every": (0, math.inf),
    "crop": (8, 4096),
    "full_size_share": (0, 1),
    "kl": (0, math.inf),
    "scratch.length": (3, 4096),
}


def parser(doc: str) -> argparse.ArgumentParser:
    """With the flags of all trainings."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", required=True, help="mini, sd15, or a YAML file of that form")
    parser.add_argument("--data", required=True, help="data set: folder, parquet shards, or mini")
    parser.add_argument("--out", type=flags.new_path, required=True, help="model folder to write")
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    return parser


def loop_parser(doc: str) -> argparse.ArgumentParser:
    """With those of the trainings in `core.loop`, too."""
    with_loop = parser(doc)
    with_loop.add_argument(
        "--resume",
        default="latest",
        metavar="latest|never|STEP",
        help="latest (default): go on from the newest saved state, if any; never: start anew; a saved step",
    )
    with_loop.add_argument(
        "--track", choices=["tensorboard", "wandb"], help="also log there (wandb: offline); default: neither"
    )
    return with_loop


def read(args: argparse.Namespace, section: str) -> argparse.Namespace:
    """Puts the checked settings of a section in place of the file's name; checks the common flags, too.

    Raises UserError.
    """
    flags.data_set(args.data)
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UserError(f"--out {args.out}: is a file; name a folder")
    args.settings = load(args.settings, section, args.overrides)
    if "resume" in args:
        states.start(args.resume, states.folder(args.out, section), args.settings.steps)
    return args


def load(name: str, section: str, overrides: list[str]) -> DictConfig:
    """The `section` of a settings file, with dot-list overrides; UserError for whatever does not fit."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else SETTINGS / f"{name}.yaml"
    if not path.exists():
        shipped = [p.stem for p in SETTINGS.glob("*.yaml")]
        raise UserError(f"--settings {name}: no such settings; {closest(name, shipped)}")
    content = read_settings(path).get(section)
    if not isinstance(content, dict):
        raise UserError(f"--settings {name}: has no section {section!r}")
    form = OmegaConf.to_container(OmegaConf.load(SETTINGS / "mini.yaml")[section])
    content = {key: None for key in OPTIONAL if key in form and form[key] is None} | content
    try:
        _check_form(content, form)
    except UserError as error:
        raise UserError(f"--settings {name}: {section}.{error}") from None
    settings = override(OmegaConf.create(content), overrides)
    _check(OmegaConf.to_container(settings))
    return settings


def _check_form(content: dict, form: dict) -> None:
    """UserError for a setting that `form` does not have, or lacks, or has of another kind."""
    for key, value in content.items():
        if key not in form:
            raise UserError(f"{key}: no such setting; {closest(str(key), form)}")
        nothing = key in MAY_BE_NULL and (value is None or form[key] is None)
        if not nothing and not fits(form[key], value):
            raise UserError(f"{key} is {value!r}, which does not fit; in mini.yaml, it is {form[key]!r}")
        if key == "validate":
            _check_form(value, form[key])
    if lacking := [key for key in form if key not in content and key not in OPTIONAL]:
        raise UserError(f"{lacking[0]} is missing; see mini.yaml")


def _check(s: dict) -> None:
    """UserError for a setting outside its limits, or that contradicts another."""
    plain = {key: value for key, value in s.items() if not isinstance(value, dict)}
    for outer, key in (("validate", "every"), ("scratch", "length")):
        if outer in s:
            plain[f"{outer}.{key}"] = s[outer].get(key, 0)
    check_limits(plain, LIMITS)
    if not numbers_to_train_on(s["per_object"]):
        raise UserError(
            f"per_object={s['per_object']}: no images to train on; give the highest number, 1 or more"
        )
    if s.get("crop") and (s["crop"] > s["size"] or s["crop"] % 8):
        raise UserError(f"crop={s['crop']}: expected a multiple of 8, up to size={s['size']}")
    if s.get("without") is not None:
        canvas.parse_targets(str(s["without"]), "without")
    check_prompts(s.get("captions"), s.get("instruction"))


def check_prompts(captions: dict | None, instruction: str | None) -> None:
    """UserError unless captions, wording -> share, and an instruction can be drawn from and filled in."""
    shares = [*captions.values()] if captions is not None else [1]
    odd = [share for share in shares if type(share) not in (int, float) or not 0 <= share < math.inf]
    if odd or not sum(shares):
        raise UserError(f"captions: {odd[0] if odd else 'nothing'} is no share; expected numbers above 0")
    for template in (*(captions or ()), instruction or ""):
        wrong = f"{template}: expected a prompt that names {{theme}} or {{object}} and has no other braces"
        with refused(wrong, LookupError, ValueError, AttributeError):
            canvas.prompt("", "", str(template))


def numbers_to_train_on(per_object: int) -> list[int]:
    """1 to `per_object` without the test numbers."""
    return [i for i in range(1, per_object + 1) if i not in canvas.TEST]
