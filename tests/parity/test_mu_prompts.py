"""The prompts of the official presets, to the letter."""

import hashlib
import itertools

import pytest

from evaluation import canvas, protocol
from machine_unlearning.core import cli, concepts
from machine_unlearning.esd import train as esd
from machine_unlearning.uce import train as uce


@pytest.fixture
def prompts(fixture_file):
    description, _ = fixture_file("mu_prompts")
    return description


def parse(method, target, tmp_path):
    (tmp_path / "model").mkdir(exist_ok=True)
    words = f"--target {target} --model {tmp_path / 'model'} --out {tmp_path / 'run'} --variant published"
    return cli.parse(method.__doc__, method.__file__, words.split())


def test_vocabulary(prompts):
    assert prompts["styles"] == canvas.THEMES
    assert prompts["objects"] == canvas.OBJECTS


def test_esd(prompts, tmp_path):
    for name, expected in prompts["targets"].items():
        args = parse(esd, name, tmp_path)
        assert args.targets[0].kind == expected["kind"]
        assert concepts.say(args.settings.prompt, args.targets[0]) == expected["esd"]


def test_uce(prompts, tmp_path):
    for name, target in prompts["targets"].items():
        args, expected = parse(uce, name, tmp_path), target["uce"]
        assert list(uce.edit_prompts(args)) == expected["edit"]
        assert list(uce.edit_prompts(args).values()) == expected["guide"]
        kept = list(itertools.compress(*uce.world_prompts(args)))
        assert len(kept) == expected["preserve_count"]
        assert kept[: len(expected["preserve_first"])] == expected["preserve_first"]
        assert kept[-1] == expected["preserve_last"]
        sha = hashlib.sha256("\n".join(kept).encode()).hexdigest()
        assert sha == expected["preserve_sha256_newline_joined"]


def test_evaluation(prompts):
    """A target's cell with any object or style: the file does not name the other half."""
    spoken = protocol.load("canvas").prompt
    for name, target in prompts["targets"].items():
        (parsed,) = canvas.parse_targets(name)
        styles = [parsed.style] if parsed.style else canvas.THEMES
        objects = [parsed.object] if parsed.object else canvas.OBJECTS
        assert target["evaluation"]["esd_ca_uce"] in {spoken(s, o) for s in styles for o in objects}
    assert canvas.prompt(canvas.PHOTO, "Cats") == "A Cats image in Photo style."
