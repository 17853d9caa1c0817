"""Configurations in CompVis's form: YAML files laid over one another, objects as `target` and `params`."""

import functools
import importlib
import inspect
import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion_model_finetuning.core.settings import check_prompts
from evaluation.core.config import check_ranges, override, read_settings
from evaluation.core.errors import UserError, closest

CONFIGS = Path(__file__).parent / "configs"
OURS = {"logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary"}
TRAINER = "lightning.trainer."
WHOLE = {  # numbers: lowest and highest
    "data.params.size": (8, 4096),
    "data.params.per_object": (1, 100_000),
    "data.params.batch_size": (1, math.inf),
    "data.params.seed": (0, 2**32 - 1),
    "data.params.workers": (0, 1024),
    "lightning.trainer.accumulate_grad_batches": (1, math.inf),
    "lightning.trainer.log_every_n_steps": (1, math.inf),
    "lightning.checkpoint.every_n_train_steps": (1, math.inf),
    "lightning.checkpoint.save_top_k": (-1, math.inf),
}
LIMITS = WHOLE | {
    "model.base_learning_rate": (1e-12, 100),
    "model.params.weight_decay": (0, 100),
    "model.params.ema_decay": (0, 1),
    "model.params.warmup": (0, 1),
    "model.params.min_snr": (1e-6, math.inf),
    "data.params.dropout": (0, 1),
}


@functools.cache
def trainer_arguments() -> dict:
    """Names and defaults of the arguments of Lightning's Trainer that are not ours to give."""
    from pytorch_lightning import Trainer  # seconds

    arguments = inspect.signature(Trainer).parameters.items()
    return {name: argument.default for name, argument in arguments if name not in OURS}


def read(bases: list[str]) -> DictConfig:
    """YAML files, or names of shipped ones, each laid over those before."""
    layers = []
    for name in bases:
        path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
        if not path.exists():
            shipped = [path.stem for path in sorted(CONFIGS.glob("*.yaml"))]
            raise UserError(f"--base {name}: no such file; {closest(name, shipped)}")
        layers.append(OmegaConf.create(read_settings(path)))
    config = OmegaConf.merge({"lightning": {"trainer": {}}}, *layers)
    sections = ("model.params", "data.params", "lightning.checkpoint", TRAINER[:-1])
    for key in ("model.target", "data.target", *sections):
        value = OmegaConf.select(config, key, default=None)
        if value is None or (key in sections) != isinstance(value, DictConfig):
            raise UserError(f"--base {' '.join(bases)}: {key} is missing; see {CONFIGS / 'sd.yaml'}")
    return config


def check(bases: list[str], overrides: list[str]) -> DictConfig:
    """The settings, all that can be told without Lightning checked: arguments of its Trainer are left out."""
    config = override(read(bases), [text for text in overrides if not text.startswith(TRAINER)])
    check_limits(config)
    return config


def load(bases: list[str], overrides: list[str]) -> DictConfig:
    """The files of `read`, then dot-list overrides.

    An override must name a key of the files, or any argument of Lightning's Trainer as lightning.trainer.KEY.
    """
    config = read(bases)
    check_keys(config.lightning.trainer, trainer_arguments(), TRAINER[:-1])
    config = override(OmegaConf.merge({"lightning": {"trainer": trainer_arguments()}}, config), overrides)
    check_limits(config)
    for key, what in (("devices", "processes"), ("max_steps", "steps")):
        if type(number := config.lightning.trainer[key]) is not int or number < 1:
            raise UserError(f"lightning.trainer.{key}={number}: give the number of {what}")
    return config


def check_limits(config: DictConfig) -> None:
    """UserError for a value outside its limits."""
    known = {key: OmegaConf.select(config, key, default=None) for key in LIMITS}
    known = {key: value for key, value in known.items() if value is not None}
    check_ranges(known, {key: LIMITS[key] for key in known})
    if fractions := [key for key in known if key in WHOLE and type(known[key]) is not int]:
        raise UserError(f"{fractions[0]}={known[fractions[0]]}: expected a whole number")
    if (size := known.get("data.params.size", 8)) % 8:
        raise UserError(f"data.params.size={size}: expected a multiple of 8, as images are encoded")
    examples = OmegaConf.to_container(config.data.params).get("examples")
    words = examples.get("params") if isinstance(examples, dict) else None
    if isinstance(words, dict):
        check_prompts(words.get("captions"), words.get("instruction"))


def check_keys(given, known, where: str) -> None:
    """UserError for a given key that is not known."""
    for key in given:
        if key not in known:
            raise UserError(f"{where}.{key}: no such setting; {closest(key, known)}")


def instantiate(section: DictConfig, where: str, **more):
    """Calls `section.target`, a dotted name, with `section.params` and `more`."""
    module, _, name = section.target.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{where}.target={section.target}: cannot be imported ({error})") from error
    params = OmegaConf.to_container(section.params)
    signature = inspect.signature(target)
    check_keys(params, signature.parameters, f"{where}.params")
    try:
        signature.bind(**params, **more)
    except TypeError as error:
        raise UserError(f"{where}.params: {error}") from error
    return target(**params, **more)
