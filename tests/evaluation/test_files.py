"""Files written whole, and what reading a damaged one says."""

import os

import pytest
from safetensors.torch import save_file

from evaluation.answers.predictions import PREDICTIONS, Prediction, read_predictions, write_predictions
from evaluation.core.errors import UserError
from evaluation.core.files import UMASK, atomic


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_others_may_read_what_safetensors_writes(tmp_path):
    with atomic(tmp_path / "a.safetensors") as temporary:
        save_file({}, temporary)
        os.chmod(temporary, 0o600)  # noqa: PTH101  as some versions of safetensors do
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~UMASK


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"PK" + b, lambda b: b"", lambda b: b[:-4]]
)
def test_damaged_predictions_are_named(tmp_path, damage):
    row = Prediction("Rust", "Cats", 1, "Rust", "Sea", 0.5, 0.25, 0.5, 0.75, "0" * 16)
    write_predictions(tmp_path, [row], {"model": "m"})
    assert read_predictions(tmp_path) == ([row], {"model": "m"})
    path = tmp_path / PREDICTIONS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"{path}: damaged .* repeat evaluation.predict"):
        read_predictions(tmp_path)
