"""Settings as data: YAML files, dataclasses, `key=value` texts; misfits are refused in a sentence."""

import inspect
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from functools import cache
from io import StringIO
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evaluation.core.errors import UserError, brief, closest, refused

LIMITS = {  # of settings that mean the same in every training
    "steps": (1, math.inf),
    "batch": (1, math.inf),
    "accumulate": (1, math.inf),
    "lr": (1e-12, 100),
    "size": (8, 4096),
    "seed": (0, 2**32 - 1),
    "workers": (0, 1024),
    "guidance": (0, 1000),
    "weight_decay": (0, 100),
    "clip": (0, math.inf),
    "precision": ("float32", "bfloat16"),
}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}
LARGEST = 2**31 - 1  # of whole numbers without another limit: more is a slip, and no loop or tensor has it


def read_settings(path: str | Path) -> dict:
    """What a YAML file says. Raises UserError if it holds no settings."""
    unreadable = (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, IsADirectoryError)
    with refused(f"{path}: not a readable YAML file", *unreadable):
        content = deepcopy(_parsed(Path(path).read_text(encoding="utf-8")))
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; expected lines such as size: 64")
    return content


@cache
def _parsed(text: str):
    """What YAML says; a table of probes asks for one protocol five thousand times."""
    return OmegaConf.to_container(OmegaConf.load(StringIO(text)), resolve=True)


def structured(kind, content: Mapping):
    """An instance of the dataclass `kind`, whose `__post_init__` may check values; lists become tuples.

    Raises UserError for a setting that is unknown or missing, or whose value is not of the field's type.
    """
    types = {field.name: field.type for field in fields(kind)}
    for key in content:
        if key not in types:
            raise UserError(f"unknown setting {key!r}; {closest(str(key), types)}")
    config = _typed(kind, content)
    if config is None:
        key = next(key for key, value in content.items() if _typed(kind, {key: value}) is None)
        raise UserError(f"{key} is {content[key]!r:.100}; expected {inspect.formatannotation(types[key])}")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"setting {missing[0]!r} is missing")
    return OmegaConf.to_object(config)


def _typed(kind, content: Mapping) -> DictConfig | None:
    """`content` as a config with the types of `kind`; None if a value fits only when converted."""
    inner = [value for values in content.values() if isinstance(values, list) for value in values]
    if any(isinstance(value, list | dict) for value in inner):  # OmegaConf looks at plain values alone
        return None
    try:
        config = OmegaConf.merge(OmegaConf.structured(kind), content)
    except (OmegaConfBaseException, TypeError, ValueError):
        return None
    plain = OmegaConf.to_container(config)
    typed = [list(plain[key]) if isinstance(plain[key], tuple) else plain[key] for key in content]
    return config if typed == list(content.values()) else None


def override(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Merges dot-list overrides into a config.

    Raises UserError for a malformed text, an unknown key, or a value of another kind than the default.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not (key and equals) or value.strip() == "???":  # OmegaConf's word for no value
            raise UserError(f"{text}: settings are given as key=value")
        if OmegaConf.select(config, key, default=KeyError) is KeyError:
            raise UserError(f"{text}: no setting is called {key!r}; {closest(key, list(config))}")
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
        OmegaConf.resolve(merged)
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{' '.join(overrides)}: {brief(error)}") from error
    for text in overrides:
        key, _, value = text.partition("=")
        before, after = OmegaConf.select(config, key), OmegaConf.select(merged, key)
        misread = type(after) is bool or (after is None and not value.strip())  # `no`, and nothing, in YAML
        if type(before) is str and misread:
            OmegaConf.update(merged, key, value)
        elif type(before) is str and isinstance(after, ListConfig):
            pass  # names in place of a word for them, such as mini
        elif before is not None and not fits(before, after):
            raise UserError(f"{text}: {key} is {before!r} by default, so {value!r} does not fit")
    return merged


def fits(default, value) -> bool:
    """Whether a value is of the default's kind: a whole number for one, any number for a fraction, a text or
    nothing for a text or nothing."""
    kinds = {type(None): str}
    default, value = (kinds.get(type(known), type(known)) for known in (default, value))
    return default is value or (default is float and value is int)


def check_kinds(settings: Mapping, examples: Mapping[str, list]) -> None:
    """UserError for a setting of another kind than all of its `examples`; null is of a kind of its own, and
    so is a list."""
    for key, value in settings.items():
        known = examples.get(key, [value])
        kinds = [default for default in known if default is not None]
        if not (None in known if value is None else any(fits(default, value) for default in kinds)):
            text, expected = "null" if value is None else value, dict.fromkeys(map(type, kinds))
            raise UserError(f"{key}={text}: expected {' or '.join(KINDS[kind] for kind in expected)}")


def check_limits(settings: Mapping, limits: Mapping) -> None:
    """UserError for a setting outside its limits: those named, else what LIMITS says for every training.

    Limits are a list: a lowest and a highest number, or the words that the setting may be.
    """
    limits = LIMITS | dict(limits)
    known = {key: limits[key] for key in settings if key in limits and settings[key] is not None}
    check_choices(settings, {key: limit for key, limit in known.items() if _words(limit)})
    check_ranges(settings, {key: limit for key, limit in known.items() if not _words(limit)})
    check_lists(settings)
    if settings.get("size") is not None and settings["size"] % 8:
        raise UserError(f"size={settings['size']}: expected a multiple of 8, as images are encoded")


def _words(limit) -> bool:
    return any(isinstance(value, str) for value in limit)


def check_choices(settings: Mapping, choices: dict[str, tuple]) -> None:
    """UserError for a setting that is none of its `choices` (setting -> values), or lists another."""
    for key, known in choices.items():
        for value in _listed(settings[key]):
            if value not in known:
                raise UserError(f"{key}={value}: no such choice; {closest(str(value), known)}")


def check_ranges(settings: Mapping, ranges: dict[str, tuple]) -> None:
    """UserError for a number, or one in a list, that is not finite or not in its range (low, high)."""
    for key, (low, high) in ranges.items():
        for value in _listed(settings[key]):
            highest = LARGEST if type(value) is int and high == math.inf else high
            if type(value) not in (int, float) or not (low <= value <= highest and math.isfinite(value)):
                limited = math.isfinite(high) or (type(value) is int and value > LARGEST)
                expected = f"from {low} to {highest}" if limited else f"of {low} or more"
                raise UserError(f"{key}={value}: expected a number {expected}")


def check_lists(settings: Mapping, empty=()) -> None:
    """UserError for a list with a name or whole number twice (fractions may repeat), or without any value
    where its setting is not named in `empty`."""
    for key, values in settings.items():
        if not isinstance(values, list | tuple):
            continue
        if not values and key not in empty:
            raise UserError(f"{key} is empty; name one at least")
        fractions = any(isinstance(value, float) for value in values)
        names = [value for value in values if isinstance(value, str | int) and not fractions]
        if twice := [value for i, value in enumerate(names) if value in names[:i]]:
            raise UserError(f"{key}: {twice[0]} is listed twice; name it once")


def _listed(value) -> list | tuple:
    return value if isinstance(value, list | tuple) else [value]
