"""What a command line may say: every setting has limits; others are refused before torch is imported."""

import functools
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from evaluation.core.config import LIMITS
from evaluation.core.errors import UserError
from machine_unlearning.core import cli
from machine_unlearning.core.params import SCOPES
from machine_unlearning.fmn import train as fmn
from machine_unlearning.seot import train as seot
from machine_unlearning.spm import train as spm
from tests import tiny
from tests.commands import answer

ROOT = Path(__file__).parent.parent.parent
TARGETS = {"style": "Sketch", "object": "Cats", "pair": "Sketch+Cats"}


def train_file(method):
    return ROOT / "machine_unlearning" / method / "train.py"


@functools.cache
def config(method):
    return OmegaConf.to_container(OmegaConf.load(train_file(method).with_name("config.yaml")))


def parse(method, target, *more):
    words = ["--target", target, "--model", str(ROOT / "checkpoints/mini"), "--out", "run", *more]
    return cli.parse("", str(train_file(method)), words)


@functools.cache
def defaults_of(method, target):
    return OmegaConf.to_container(parse(method, target).settings)


def kinds(method):
    return [kind for kind in TARGETS if kind in config(method)["canvas"]]


@pytest.mark.parametrize("method", tiny.METHODS)
def test_a_wrong_setting_is_told_before_torch_is_imported(method, tmp_path):
    key = next(iter(config(method)["limits"]))
    words = ["--target", "Sketch", "--model", str(ROOT / "checkpoints/mini"), "--out", "run", f"{key}=-7"]
    assert answer(tmp_path, f"machine_unlearning.{method}.train", *words).startswith(f"error: {key}=-7: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", tiny.METHODS)
def test_every_number_and_word_has_limits(method):
    whole = config(method)
    known = LIMITS | whole["limits"] | whole.get("prompts", {})
    for variant in cli.VARIANTS:
        for kind in kinds(method):
            sections = [whole[name] for name in ("canvas", variant) if name in whole]
            values = {
                k: v for s in sections for part in ("all", kind) for k, v in (s.get(part) or {}).items()
            }
            assert not [key for key, value in values.items() if type(value) is not bool and key not in known]
            for key, value in values.items():  # of one type in all variants, so that fractions fit in each
                default = whole["canvas"].get("all", {}).get(key)
                assert None in (value, default) or type(value) is type(default) or key == "captions", key
    assert whole["limits"].keys() <= {
        key for s in whole.values() for p in s.values() if isinstance(p, dict) for key in p
    }
    for key in ("scope", "trim_scope"):
        assert whole["limits"].get(key, [*SCOPES]) == [*SCOPES]


def outside(default, limit):
    """Texts of values that a setting cannot have."""
    words = st.text("abcdefgh", min_size=4, max_size=8)
    if isinstance(default, bool):
        return st.one_of(words, st.integers(2).map(str))
    if isinstance(limit, str):  # a prompt
        return st.sampled_from(["a {foo} b", "a {", "}", "{0}", "{{", "{style.upper}", "{object!r}", "[[]]"])
    if any(isinstance(value, str) for value in limit):
        return st.one_of(words.filter(lambda word: word not in limit), st.integers().map(str))
    low, high = limit
    below = st.floats(max_value=low, exclude_max=True, allow_infinity=False)
    numbers = [below, st.sampled_from([math.nan, math.inf, -math.inf])]
    if high < math.inf:
        numbers.append(st.floats(min_value=high, exclude_min=True, allow_infinity=False))
    if isinstance(default, int):
        numbers += [st.integers(max_value=math.ceil(low) - 1), st.floats(low + 0.1, low + 0.9)]
    wrong = st.one_of(words, *(number.map(str) for number in numbers))
    return wrong.map(lambda text: f"[{text}]") if isinstance(default, list) else wrong


def foreign(method, key):
    """Texts of values of kinds that a setting never has in config.yaml."""
    parts = [part for name in cli.VARIANTS for part in (config(method).get(name) or {}).values() if part]
    known = {type(part[key]) for part in parts if key in part}
    texts = ["{a: 1}"] + ["null"] * (type(None) not in known) + ["[a]", "[1]"] * (list not in known)
    return texts + ["1.5"] * (int in known and float not in known)


@pytest.mark.parametrize("method", tiny.METHODS)
@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_values_out_of_their_limits_are_refused_by_name(method, data):
    target = TARGETS[data.draw(st.sampled_from(kinds(method)))]
    defaults = defaults_of(method, target)
    whole = config(method)
    key = data.draw(st.sampled_from(sorted(defaults)))
    limit = (LIMITS | whole["limits"] | whole.get("prompts", {})).get(key)
    text = data.draw(st.one_of(outside(defaults[key], limit), st.sampled_from(foreign(method, key))))
    with pytest.raises(UserError, match=rf"\b{re.escape(key)}\b"):
        parse(method, target, f"{key}={text}")


@pytest.mark.parametrize("method", tiny.METHODS)
def test_values_at_their_limits_are_accepted(method):
    defaults = parse(method, "Sketch").settings
    for key, limit in config(method)["limits"].items():
        words = isinstance(limit[0], str)
        for value in limit if words else [end for end in limit if math.isfinite(end)]:
            text = f"[{value}]" if OmegaConf.is_list(defaults[key]) else f"{value}"
            assert parse(method, "Sketch", f"{key}={text}").settings[key] in (value, [value])


@pytest.mark.parametrize(
    "method, words, message",
    [
        (seot, "begin=0.5 end=0.4", "begin=0.5: expected no more than end=0.4"),
        (seot, "lambdas=[1.0,-1,1]", r"lambdas=\[1.0, -1, 1\]: expected four numbers"),
        (spm, "anchors=2 empty=2", "empty=2: expected fewer than anchors=2"),
        (spm, "sides=[0.05]", r"sides=\[0.05\]: expected shares that leave 8 of size=64 pixels"),
        (fmn, "prompt=something", "prompt=something: expected a text with {tokens}, once"),
    ],
)
def test_settings_that_contradict_each_other(method, words, message):
    given = ["--target", "Sketch", "--model", str(ROOT / "checkpoints/mini"), "--out", "run", *words.split()]
    with pytest.raises(UserError, match=message):
        method.parse(given)


@pytest.mark.parametrize("target, name", [("Sketch", "object"), ("Cats", "style")])
def test_a_prompt_names_what_the_target_has(target, name):
    with pytest.raises(UserError, match=f"prompt=an? {{{name}}}: expected a text with "):
        parse("esd", target, f"prompt=a {{{name}}}")
    assert parse("esd", "Sketch+Cats", f"prompt=a {{{name}}}").settings.prompt


@pytest.mark.parametrize(
    "method, words, message",
    [
        ("hirm", "wording=null", "wording=null: expected a text"),  # which would mean cells
        ("saeuron", "block=null", "block=null: expected a text"),
        ("diff_quickfix", "anchor=[a]", r"anchor=\['a'\]: expected a text"),
        ("fia", "walk=1.5", "walk=1.5: expected a whole number"),
        ("fia", "alpha=foo", "alpha=foo: expected a number"),
        ("hirm", "steps=1000000000000", "steps=1000000000000: expected a number from 1 to 2147483647"),
    ],
)
def test_a_setting_keeps_its_kind(method, words, message):
    with pytest.raises(UserError, match=message):
        parse(method, "Sketch", words)
    with pytest.raises(UserError, match=message):  # of a run that acts while images are sampled
        settings = dict(defaults_of(method, "Sketch"))
        key, _, text = words.partition("=")
        record = {"method": method, "target": "Sketch", "settings": settings | {key: yaml.safe_load(text)}}
        cli.recorded_settings("run", record)


def test_a_list_of_fractions_may_repeat_one():
    assert parse("seot", "Sketch", "lambdas=[1,-0.5,1,-0.5]").settings.lambdas == [1, -0.5, 1, -0.5]
