import pytest
from omegaconf import OmegaConf

from evaluation.core.config import check_choices, override
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
    ],
)
def test_refusals(text, message):
    with pytest.raises(UserError, match=message):
        override(OmegaConf.create(DEFAULTS), [text])


def test_choices():
    check_choices({"order": "natural"}, {"order": ("natural", "lexicographic")})
    with pytest.raises(UserError, match="order=lexicografic: no such choice; did you mean lexicographic"):
        check_choices({"order": "lexicografic"}, {"order": ("natural", "lexicographic")})
