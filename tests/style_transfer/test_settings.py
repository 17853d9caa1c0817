"""Every command's words: answered before torch is imported; every setting and option has limits."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.core import config
from evaluation.core.errors import UserError
from style_transfer import train, train_encoder
from style_transfer.core import cli
from style_transfer.core.networks import with_options
from tests.commands import answer

ROOT = Path(__file__).parents[2]
TRAINED = sorted(ROOT.glob("style_transfer/*/config.yaml"))
TEXTS = {"subjects", "targets", "prompt", "negative"}  # of which every one is right
FEW = settings(derandomize=True, max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = ["", "foo", "[]", "{a: 1}", "null", "true", "1e400", "../x", "-0.0", "[", "a: b: c", "${foo}", "${"]
ODD = st.one_of(
    st.integers(), st.floats(), st.sampled_from([*WORDS, "!!python/name:os.system", "*a", "[1,2]"])
)


@pytest.mark.parametrize("words", ["steps=0", "strength=nan", "foo=1", "--limit=0", "--styles=Foo"])
def test_wrong_options_too(words, tmp_path):
    flags = ["--weights", ".", "--data", "mini", "--out", "painted", words]
    assert answer(tmp_path, "style_transfer.transfer", "sanet", *flags).count("error: ") == 1
    assert not (tmp_path / "painted").exists()


@pytest.mark.parametrize("path", [*TRAINED, train_encoder.SETTINGS], ids=lambda path: path.parent.name)
def test_every_number_and_word_has_limits(path):
    content = yaml.safe_load(path.read_text())
    known = config.LIMITS | cli.LIMITS | content.get("limits", {}) | {"weights": train.LIMIT_OF_WEIGHTS}
    sections = [content.get(name, {}) for name in ("canvas", "mini")]
    if path == train_encoder.SETTINGS:
        sections = [{key: value for key, value in content.items() if key != "limits"}]
    names = {name for section in sections for name, value in section.items() if not isinstance(value, bool)}
    assert names <= known.keys() | TEXTS
    assert content.get("limits", {}).keys() <= names  # none is left over


@pytest.mark.parametrize("method", cli.METHODS)
def test_options_are_data_and_attributes_of_the_network(method):
    """With limits, read without an import; a new network has them with these values."""
    model = importlib.import_module(f"style_transfer.{method}.model")
    options, limits = (cli.constant(method, name) for name in ("OPTIONS", "LIMITS"))
    assert options == getattr(model, "OPTIONS", {}) and limits == getattr(model, "LIMITS", {})
    assert options.keys() - TEXTS <= config.LIMITS.keys() | cli.LIMITS.keys() | limits.keys()
    assert limits.keys() <= options.keys()
    kinds = [kind for _, kind in inspect.getmembers(model, inspect.isclass) if hasattr(kind, "stylise")]
    if method == "blip":  # is not made of widths alone
        assert "vars(self).update(OPTIONS)" in inspect.getsource(kinds[0].__init__)
        return
    network = kinds[0]()
    assert options == {name: getattr(network, name) for name in options}
    for name, value in options.items():
        assert getattr(with_options(network, **{name: "other"}), name) == "other"
        assert getattr(network, name) == value
    with pytest.raises(UserError, match=r"foo=1: .* has no such option"):
        with_options(network, foo=1)


def refused_or_right(parse, limits, name, value):
    """An odd value is refused in a sentence, or lies within the limits."""
    try:
        given = parse(f"{name}={value}")
    except (UserError, SystemExit) as error:
        assert "\n" not in str(error)
        return
    values = given if isinstance(given, list) else [given]
    limit = limits.get(name)
    for value in values:
        if isinstance(value, bool) or value is None or name in TEXTS:
            continue
        assert value in limit if any(isinstance(x, str) for x in limit) else limit[0] <= value <= limit[1]


@pytest.mark.parametrize("method", cli.METHODS)
@FEW
@given(data=st.data())
def test_odd_options(method, data, tmp_path):
    options = cli.constant(method, "OPTIONS")
    if not options:
        pytest.skip("has none")
    name = data.draw(st.sampled_from(sorted(options)))
    flags = ["--weights", str(tmp_path), "--data", "mini", "--out", str(tmp_path / "out")]

    def parse(text):
        return cli.parse_transfer("", [method, *flags, text]).options[name]

    limits = config.LIMITS | cli.LIMITS | cli.constant(method, "LIMITS")
    refused_or_right(parse, limits, name, data.draw(ODD))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.parent.name)
@FEW
@given(data=st.data())
def test_odd_settings(path, data, tmp_path):
    content = yaml.safe_load(path.read_text())
    weights = {f"weights.{name}" for name in content["canvas"]["weights"]}
    name = data.draw(st.sampled_from(sorted(content["canvas"].keys() | weights)))

    def parse(text):
        args = train.parse([path.parent.name, "--out", str(tmp_path), text])
        keys, value = name.split("."), args.settings
        for key in keys:
            value = value[key]
        return list(value.values()) if name == "weights" else value

    limits = config.LIMITS | cli.LIMITS | content.get("limits", {}) | {"weights": train.LIMIT_OF_WEIGHTS}
    refused_or_right(parse, limits | dict.fromkeys(weights, train.LIMIT_OF_WEIGHTS), name, data.draw(ODD))


@pytest.mark.parametrize(
    "method, text, said",
    [
        ("mccnet", "crop=33", "crop=33: expected a multiple of 16"),
        ("mccnet", "crop=80", "no more than load=64"),
        ("mccnet", "batch=181", "batch=181: there are 180 photos"),
        ("mccnet", "weights.content=.nan", "weights.content=nan: expected a number from 0"),
        ("mccnet", "weights={foo: 1}", "foo"),
        ("mccnet", "noise=[0.2,0.1]", "noise=[0.2, 0.1]: expected two numbers"),
        ("mccnet", "noise=[0.2]", "noise=[0.2]: expected two numbers"),
        ("ie_contrast", "layers=3", "layers=3: needs images of 64 pixels or more"),
        ("ie_contrast", "batch=1", "batch=1: expected a number from 2"),
    ],
)
def test_settings_that_do_not_fit_each_other(method, text, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([method, "--out", str(tmp_path / "out"), "--device", "cpu", text])
    assert stop.value.code == 2 and said in capsys.readouterr().err
