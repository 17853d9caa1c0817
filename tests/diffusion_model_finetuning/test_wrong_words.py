"""Wrong words are answered before anything slow is imported, and name what is wrong."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from omegaconf import OmegaConf

from diffusion_model_finetuning import sample
from diffusion_model_finetuning.compvis import config, main
from diffusion_model_finetuning.core import settings as files
from evaluation.core import flags
from evaluation.core.config import LIMITS
from evaluation.core.errors import UserError

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGE = REPOSITORY / "diffusion_model_finetuning"
MINI = OmegaConf.to_container(OmegaConf.load(PACKAGE / "settings/mini.yaml"))
RANGES = {
    (name, key): limits
    for name, section in MINI.items()
    for key, limits in (LIMITS | files.LIMITS).items()
    if key in section and not isinstance(limits[0], str)
}


@given(some.sampled_from(sorted(RANGES)), some.booleans(), some.integers(1, 10**6))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_numbers_outside_their_limits(place, below, distance):
    (name, key), (low, high) = place, RANGES[place]
    value = low - distance if below or high == math.inf else high + distance
    with pytest.raises(UserError, match=key):
        files.load("mini", name, [f"{key}={value}"])


@pytest.mark.parametrize("value", ["nan", ".nan", "inf", ".inf", "-.inf"])
@pytest.mark.parametrize("key", ["lr", "clip", "ema", "min_snr"])
def test_numbers_that_are_none(key, value):
    with pytest.raises(UserError, match=key):
        files.load("mini", "sd", [f"{key}={value}"])


@pytest.mark.parametrize("key", ["steps", "batch", "keep", "per_object", "flip", "captions", "lr"])
@pytest.mark.parametrize("value", ["many", None, [1], True, 1.5, {"a": 1}])
def test_values_of_another_kind(key, value, tmp_path):
    if (key, value) in (("flip", True), ("lr", 1.5), ("captions", {"a": 1})):  # that fit
        return
    OmegaConf.save(OmegaConf.create({"sd": MINI["sd"] | {key: value}}), tmp_path / "own.yaml")
    with pytest.raises(UserError, match=rf"own\.yaml: sd\.{key}"):
        files.load(str(tmp_path / "own.yaml"), "sd", [])


@pytest.mark.parametrize(
    "text, message",
    [
        ("sd: [", "not a readable YAML file"),
        ("sd: 5", "has no section 'sd'"),
        ("sd: {steps: 5}", "sd.seed is missing"),
        ("sd: {stepps: 5}", "sd.stepps: no such setting; did you mean steps"),
        ("- 1", "holds no settings"),
    ],
)
def test_files_of_another_form(text, message, tmp_path):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        files.load(str(tmp_path / "own.yaml"), "sd", [])


@pytest.mark.parametrize(
    "section, word, message",
    [
        ("sd", "text_encoder=foo", "text_encoder=foo"),
        ("sd", "precision=fp8", "precision=fp8"),
        ("sd", "size=60", "multiple of 8"),
        ("sd", "per_object=0", "no images"),
        ("sd", "validate.every=-1", "validate.every"),
        ("sd", "scratch.length=1", "scratch.length"),
        ("sd", "captions.{theme} style=-1", "no setting|is no share"),
        ("ip2p", "instruction=to {style}", r"names {theme} or {object}"),
        ("ip2p", "instruction=to {", "expected a prompt that names"),
        ("vae", "crop=128", "up to size=64"),
    ],
)
def test_settings_that_make_no_sense(section, word, message):
    with pytest.raises(UserError, match=message):
        files.load("mini", section, [word])


def test_shipped_settings_are_fine():
    for name in ("mini", "sd15"):
        for section in OmegaConf.load(PACKAGE / f"settings/{name}.yaml"):
            files.load(name, section, [])


@pytest.mark.parametrize("data", ["nowhere", "mini:x", "mini:", "mini:-1", "README.md"])
def test_data_that_cannot_be_there(data):
    with pytest.raises(UserError, match="--data"):
        flags.data_set(data)


def refusal(main, words, capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*map(str, words)])
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--prompt", "a", "--out", "cat"], "cat.png"),
        (["--prompt", "a", "--out", "a.foo"], "a.png"),
        (["--prompt", "a", "--out", "."], "is a folder"),
        (["--prompt", "a", "--out", "a.png", "--steps", "0"], "--steps"),
        (["--prompt", "a", "--out", "a.png", "--steps", "1001"], "--steps"),
        (["--prompt", "a", "--out", "a.png", "--size", "4"], "--size"),
        (["--prompt", "a", "--out", "a.png", "--guidance", "nan"], "--guidance"),
        (["--prompt", "a", "--out", "a.png", "--seed", "-1"], "--seed"),
        (["--prompt", "a", "--out", "a.png", "--device", "gpu"], "--device"),
        (["--prompt", "a", "--out", "a.png", "--photo", "nowhere.jpg"], "nowhere.jpg"),
        (["--out", "answers", "--photo", "README.md"], "--photo"),
        (["--out", "answers", "--batch", "0"], "--batch"),
        (["--out", "answers", "--photos", "0"], "--photos"),
        (["--out", "answers", "--photos", "19", "19"], "--photos"),
        (["--out", "README.md"], "is a file"),
        (["--out", "answers", "--model", "nowhere"], "--model nowhere"),
        (["--out", "answers", "--protocol", "nowhere"], "--protocol nowhere"),
    ],
)
def test_flags_of_the_sampler(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sample, "load_sd", None)  # none of these loads a model
    assert message in refusal(sample.main, words, capsys)


def test_an_empty_prompt_is_one():
    assert sample.parse(["--prompt", "", "--out", "a.PNG"]).prompt == ""


def test_what_only_the_model_tells(tiny_sd, tmp_path, capsys, monkeypatch):
    words = ["--model", tiny_sd, "--prompt", "a", "--out", tmp_path / "a.png", "--steps", "1"]
    assert "multiple of 2" in refusal(sample.main, [*words, "--size", "17"], capsys)
    photo = REPOSITORY / "evaluation/README.md"
    with monkeypatch.context() as patch:
        patch.setattr(sample.cards, "edits", lambda folder: True)
        refused = refusal(sample.main, [*words, "--size", "16", "--photo", photo], capsys)
    assert "not a readable image" in refused
    sample.main([*map(str, words), "--size", "16"])
    drawn = tmp_path / "a.png"
    words[5] = tmp_path / "b.png"
    assert "draws from text alone" in refusal(sample.main, [*words, "--size", "16", "--photo", drawn], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "word",
    [
        "data.params.batch_size=0",
        "data.params.size=60",
        "data.params.seed=-1",
        "data.params.dropout=-1",
        "model.params.ema_decay=2",
        "model.base_learning_rate=nan",
        "lightning.checkpoint.every_n_train_steps=0",
    ],
)
def test_limits_of_the_compvis_settings(word):
    with pytest.raises(UserError, match=word.partition("=")[0].replace(".", r"\.")):
        config.check(["mini_sd"], [word])


@pytest.mark.parametrize("name", ["../run", "a/b", "/tmp/a", "..", ".", "", "a" * 300])
def test_names_of_compvis_runs(name, capsys):
    words = ["--base", "mini_sd", "--name", name, "--model", "checkpoints/mini", "--data", "mini"]
    assert "--name" in refusal(main.main, words, capsys)
