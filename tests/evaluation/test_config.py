import pytest
from omegaconf import OmegaConf

from evaluation.core.config import override
from evaluation.core.errors import UserError

DEFAULTS = {"precision": "fp16", "flip": True, "steps": 4, "min_snr": None}


def test_values_keep_their_kind():
    changed = override(OmegaConf.create(DEFAULTS), ["precision=no", "flip=no", "steps=8", "min_snr=5"])
    assert dict(changed) == {"precision": "no", "flip": False, "steps": 8, "min_snr": 5}


@pytest.mark.parametrize(
    "text, message",
    [
        ("steps=many", "steps is 4 by default"),
        ("flip=2", "flip is True by default"),
        ("precision=16", "precision is 'fp16' by default"),
        ("stepz=8", "did you mean steps"),
        ("steps", "key=value"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(UserError, match=message):
        override(OmegaConf.create(DEFAULTS), [text])
