import math
import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from evaluation.core.config import check_choices, check_limits, override, read_settings, structured
from evaluation.core.errors import UserError

DEFAULTS = {"precision": "fp16", "flip": True, "steps": 4, "min_snr": None, "edit": ["a"], "guide": "b"}


def test_values_keep_their_kind():
    texts = ["precision=no", "flip=no", "steps=8", "min_snr=5", "edit=[c,d]", "guide=null"]
    expected = {"precision": "no", "flip": False, "steps": 8, "min_snr": 5, "edit": ["c", "d"], "guide": None}
    assert OmegaConf.to_container(override(OmegaConf.create(DEFAULTS), texts)) == expected
    assert override(OmegaConf.create(DEFAULTS | {"lr": 0.1}), ["lr=1"]).lr == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("steps=many", "steps is 4 by default"),
        ("steps=0.5", "steps is 4 by default"),
        ("flip=2", "flip is True by default"),
        ("precision=16", "precision is 'fp16' by default"),
        ("steps=null", "steps is 4 by default"),
        ("edit=c", r"edit is \['a'\] by default"),
        ("stepz=8", "did you mean steps"),
        ("steps", "key=value"),
        ("=3", "key=value"),
        ("steps=???", "key=value"),
        ('steps="', "while scanning"),
        ("steps=${foo}", "not found"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(UserError, match=message):
        override(OmegaConf.create(DEFAULTS), [text])


def test_choices():
    check_choices({"order": "natural"}, {"order": ("natural", "lexicographic")})
    with pytest.raises(UserError, match="order=lexicografic: no such choice; did you mean lexicographic"):
        check_choices({"order": "lexicografic"}, {"order": ("natural", "lexicographic")})


@dataclass
class Form:
    shares: tuple[float, ...]
    words: dict[str, str]


@pytest.mark.parametrize("shares", [[[1.0]], [{"a": 1.0}], [0.5, [1.0]], [None], ["a"], "a", 0.5])
def test_a_list_of_numbers_has_no_lists_in_it(shares):
    assert structured(Form, {"shares": [0.5, 1.0], "words": {}}).shares == (0.5, 1.0)
    with pytest.raises(UserError, match=r"shares is .*; expected tuple"):
        structured(Form, {"shares": shares, "words": {}})


LIMITED = {"steps": 4, "lr": 0.1, "eta": 1.0, "size": 64, "technique": "replace"}
LIMITED |= {"prompt": "a {style}", "edit": ["b"]}
OWN = {"eta": [0, 100], "technique": ["replace", "tensor"]}


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"steps": 0}, "steps=0: expected a number of 1 or more"),
        ({"lr": 0.0}, "lr=0.0: expected a number from"),
        ({"lr": -1}, "lr=-1: expected a number from"),
        ({"lr": math.nan}, "lr=nan: expected a number from"),
        ({"eta": math.inf}, "eta=inf: expected a number from 0 to 100"),
        ({"size": 63}, "size=63: expected a multiple of 8"),
        ({"size": 1 << 20}, "size=1048576: expected a number from 8 to 4096"),
        ({"technique": "foo"}, "technique=foo: no such choice; choose from replace, tensor"),
        ({"edit": []}, "edit is empty"),
        ({"steps": 1 << 31}, "steps=2147483648: expected a number from 1 to 2147483647"),
    ],
)
def test_settings_out_of_their_limits_are_refused(changes, sentence):
    check_limits(LIMITED, OWN)
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_limits(LIMITED | changes, OWN)


@settings(derandomize=True, max_examples=200)
@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_whatever_is_given_for_a_count_it_is_one_or_refused(value):
    try:
        config = override(OmegaConf.create({"steps": 4}), [f"steps={value}"])
        check_limits(OmegaConf.to_container(config), {})
    except UserError:
        return
    assert type(config.steps) is int and config.steps >= 1


def test_a_file_of_settings_is_parsed_once_and_read_every_time(tmp_path, monkeypatch):
    """What a caller does to the settings, another does not see; a change of the file all do."""
    parsed, load = [], OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: parsed.append(file) or load(file))
    path = tmp_path / "own.yaml"
    path.write_text(f"seeds: [1, 2]\nname: {tmp_path.name}\n")
    read_settings(path)["seeds"].append(3)
    assert read_settings(path)["seeds"] == [1, 2] and len(parsed) == 1
    path.write_text(f"seeds: [4]\nname: {tmp_path.name}\n")
    assert read_settings(path)["seeds"] == [4]
