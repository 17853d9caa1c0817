"""Settings as data: `key=value` texts laid over a config, with helpful refusals."""

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evaluation.core.errors import UserError, closest


def override(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Merges dot-list overrides into a config. UserError for a malformed text or an unknown key."""
    for text in overrides:
        key, equals, _ = text.partition("=")
        if not equals:
            raise UserError(f"{text}: settings are given as key=value")
        if OmegaConf.select(config, key, default=KeyError) is KeyError:
            raise UserError(f"{text}: no setting is called {key!r}; {closest(key, list(config))}")
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise UserError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    for text in overrides:
        key, _, value = text.partition("=")
        before, after = OmegaConf.select(config, key), OmegaConf.select(merged, key)
        if type(before) is str and type(after) is bool:  # YAML's own reading of words such as no
            OmegaConf.update(merged, key, after := value)
        if before is not None and (_is_number(before), type(before) is bool) != (
            _is_number(after),
            type(after) is bool,
        ):
            raise UserError(f"{text}: {key} is {before!r} by default, so {value!r} does not fit")
    return merged


def check_choices(config: DictConfig, choices: dict[str, tuple]) -> None:
    """UserError for a setting that is none of its `choices` (setting -> values)."""
    for key, known in choices.items():
        if config[key] not in known:
            raise UserError(f"{key}={config[key]}: no such choice; {closest(str(config[key]), known)}")


def _is_number(value) -> bool:
    return type(value) in (int, float)
