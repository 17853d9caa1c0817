"""Configurations in CompVis's form: YAML files laid over one another, objects as `target` and `params`."""

import importlib
import inspect
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import Trainer

from evaluation.core.config import override
from evaluation.core.errors import UserError, closest

CONFIGS = Path(__file__).parent / "configs"
OURS = {"logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary"}
TRAINER = {
    name: parameter.default
    for name, parameter in inspect.signature(Trainer).parameters.items()
    if name not in OURS
}


def load(bases: list[str], overrides: list[str]) -> DictConfig:
    """YAML files, or names of shipped ones, each laid over those before; then dot-list overrides.

    An override must name a key of the files, or any argument of Lightning's Trainer as lightning.trainer.KEY.
    """
    layers = [OmegaConf.create({"lightning": {"trainer": TRAINER}})]
    for name in bases:
        path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
        if not path.exists():
            shipped = [path.stem for path in sorted(CONFIGS.glob("*.yaml"))]
            raise UserError(f"--base {name}: no such file; {closest(name, shipped)}")
        try:
            layers.append(OmegaConf.load(path))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(f"--base {name}: not a readable YAML file ({error})") from error
    config = OmegaConf.merge(*layers)
    for key in ("model.target", "data.target", "lightning.checkpoint"):
        if OmegaConf.select(config, key) is None:
            raise UserError(f"--base {' '.join(bases)}: {key} is missing; see {CONFIGS / 'sd.yaml'}")
    check_keys(config.lightning.trainer, TRAINER, "lightning.trainer")
    config = override(config, overrides)
    for key, what in (("devices", "processes"), ("max_steps", "steps")):
        if type(number := config.lightning.trainer[key]) is not int or number < 1:
            raise UserError(f"lightning.trainer.{key}={number}: give the number of {what}")
    return config


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
