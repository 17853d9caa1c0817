"""Protocols of adversarial prompts: what their hash holds, what they refuse."""

from dataclasses import fields, replace

import pytest
from omegaconf import OmegaConf

from evaluation import attacks, protocol
from evaluation.core.errors import UserError

MINI = attacks.load("mini")
OTHER = {
    "answers": "canvas", "seeds": (288,), "tokens": 6, "position": "suffix", "special": True,
    "timesteps": 7, "iterations": 21, "lr": 0.5, "weight_decay": 0.5, "loss": "l1", "reference": 2,
    "retokenise": True,
}  # fmt: skip


def test_shipped_attacks_follow_the_published_one():
    """50 timesteps of 40 iterations, lr 0.01, decay 0.1, before the prompt; of the follow-up, five words."""
    for name in ("canvas", "canvas-published"):
        plan = attacks.load(name)
        assert (plan.tokens, plan.timesteps, plan.iterations, plan.lr, plan.weight_decay) == (
            5,
            50,
            40,
            0.01,
            0.1,
        )
        assert (plan.position, plan.loss, plan.answers, plan.world.hash) == (
            "prefix", "l2", name, protocol.load(name).hash
        )  # fmt: skip
    assert attacks.load("canvas-published").retokenise and not attacks.load("canvas").retokenise
    assert len({attacks.load(path.stem).hash for path in attacks.FOLDER.glob("*.yaml")}) == 4


def test_the_hash_holds_all_but_the_name():
    assert {"name", *OTHER} == {field.name for field in fields(attacks.Attack)}
    hashes = {
        replace(MINI, **{key: value}).hash for key, value in OTHER.items() if value != getattr(MINI, key)
    }
    assert len(hashes) == len(OTHER) and MINI.hash not in hashes
    assert replace(MINI, name="other").hash == MINI.hash


def test_the_hash_holds_the_sampling_protocol(tmp_path):
    world = OmegaConf.load(protocol.FOLDER / "mini.yaml")
    for name, guidance in (("same", world.guidance), ("other", 1.0)):
        OmegaConf.save(world | {"guidance": guidance}, tmp_path / f"{name}.yaml")
    assert replace(MINI, answers=str(tmp_path / "same.yaml")).hash == MINI.hash
    assert replace(MINI, answers=str(tmp_path / "other.yaml")).hash != MINI.hash


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"seeds": (188, 7)}, "seeds: 7 is none of protocol mini; choose from 188, 288"),
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (188, 188)}, "seeds: 188 is listed twice"),
        ({"position": "middle"}, "position=middle: no such choice"),
        ({"loss": "l3"}, "loss=l3: no such choice; did you mean l2"),
        ({"tokens": 0}, "tokens=0: expected a number from 1 to 64"),
        ({"timesteps": 501}, "timesteps=501: expected a number from 1 to 500"),
        ({"lr": float("nan")}, "lr=nan: expected a number"),
        ({"reference": 21}, "reference=21: expected a number from 1 to 20"),
        ({"answers": "canvs"}, "answers canvs: no such protocol; did you mean canvas"),
        ({"name": "a/b"}, "name=a/b: expected letters"),
    ],
)
def test_refusals(changes, sentence):
    with pytest.raises(UserError) as error:
        replace(MINI, **changes)
    assert sentence in str(error.value)


def test_unknown_names_and_settings(tmp_path):
    with pytest.raises(UserError, match="--attack minii: no such protocol; did you mean mini"):
        attacks.load("minii")
    (tmp_path / "odd.yaml").write_text((attacks.FOLDER / "mini.yaml").read_text() + "token: 3\n")
    with pytest.raises(UserError, match="unknown setting 'token'; did you mean tokens"):
        attacks.load(tmp_path / "odd.yaml")
