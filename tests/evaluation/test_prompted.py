"""Protocols of attacks and probes: whatever a file says, it is one that can be asked, or a sentence."""

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation import attacks, probes, protocol
from evaluation.core.config import read_settings
from evaluation.core.errors import UserError

KINDS = {"attack": (attacks.Attack, attacks.FOLDER)}
KINDS |= {name: (kind, probes.FOLDER / name) for name, kind in probes.KINDS.items()}
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from([0.1, 0.5, 1, 2, 188, "style", "object", "lora", "full", "mini", "plain", "{name}"]),
)  # fmt: skip
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3), max_leaves=6
)


def content(name):
    return {"name": "mini", **read_settings(KINDS[name][1] / "mini.yaml")}


def read(name, changes):
    return protocol.from_dict(content(name) | changes, "file.yaml", KINDS[name][0])


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_file_says_it_is_a_protocol_or_a_sentence(name, data):
    key = data.draw(st.sampled_from(sorted(content(name))))
    try:
        plan = read(name, {key: data.draw(ANYTHING)})
    except UserError as error:
        assert str(error).startswith("file.yaml: ")
        return
    assert len(plan.hash) == 16
    if name != "attack":
        assert plan.conditions and all(plan.measures.values())
        files = [condition.replace(" ", "_") for condition in plan.conditions]
        assert len({"plain", *files}) == 1 + len(files)


NAMED = partial(dict.fromkeys, ["style", "object"])


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("completion", {"shares": [[1]]}, "shares is"),
        ("completion", {"shares": [0.5, 0.5000000001]}, "shares: 0.5 is the name of another condition"),
        ("noise", {"etas": [1.0, 1.0]}, "etas: 1 is the name of another condition"),
        ("noise", {"variances": [{"a": 1}]}, "variances is"),
        ("ladder", {"levels": {"plain": NAMED("a")}}, "levels: plain is the name of another"),
        ("ladder", {"levels": {"any_level": NAMED("a")}}, "levels: any_level is the name of another"),
        ("ladder", {"levels": {"a b": NAMED("a"), "a_b": NAMED("b")}}, "levels: a_b is the name of another"),
        ("ladder", {"levels": {"neighbour": NAMED("{name}")}}, "levels.neighbour.style: .*in it"),
        ("ladder", {"levels": {"a": {}}}, "levels.a is empty"),
        ("ladder", {"levels": {"a/b": NAMED("a")}}, "levels=a/b: expected letters"),
        ("inversion", {"start": NAMED(" ")}, "start: expected a word for style and for object"),
        ("relearning", {"weights": []}, "weights is empty"),
        ("attack", {"tokens": 10**30}, "tokens"),
    ],
)
def test_conditions_that_cannot_be_told_apart(name, changes, message):
    read(name, {})
    with pytest.raises(UserError, match=f"^file.yaml: {message}"):
        read(name, changes)
