"""Files written whole, and what reading a damaged one says."""

import gzip
import os
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


def predicted(folder):
    """Two rows of predictions -> the lines of their file."""
    rows = [Prediction("Rust", "Cats", seed, "Rust", "Cats", 0.5, 0.5, 0.9, 0.9, "0" * 16) for seed in (1, 2)]
    labels = {"theme": ["Rust", "Sketch"], "object": ["Cats", "Dogs"]}
    write_predictions(folder, rows, {"model": "m", "labels": labels})
    return gzip.decompress((folder / PREDICTIONS).read_bytes()).decode().splitlines()


def rewrite(folder, lines):
    (folder / PREDICTIONS).write_bytes(gzip.compress("\n".join(lines).encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize(
    "column, value",
    [
        (3, "Van_Gogh"),
        (3, "</b>"),
        (4, "Human"),
        (5, "nan"),
        (6, "1.01"),
        (7, "-0.1"),
        (9, "x" * 16),
        (9, "é" * 16),
    ],
)
def test_a_value_that_no_judge_says(tmp_path, column, value):
    lines = predicted(tmp_path)
    assert len(read_predictions(tmp_path)[0]) == 2
    cells = lines[-1].split(",")
    rewrite(tmp_path, [*lines[:-1], ",".join([*cells[:column], value, *cells[column + 1 :]])])
    with pytest.raises(UserError, match=f"{PREDICTIONS}: damaged"):
        read_predictions(tmp_path)


def test_predictions_without_labels_are_of_the_benchmarks(tmp_path):
    lines = predicted(tmp_path)
    for label, known in (("Van_Gogh", True), ("Foo", False)):
        rewrite(tmp_path, ['# {"model": "m"}', lines[1], lines[2].replace("1,Rust", f"1,{label}")])
        if known:
            assert read_predictions(tmp_path)[0][0].theme_seen == label
            continue
        with pytest.raises(UserError, match="'Foo' is no label"):
            read_predictions(tmp_path)


@settings(
    derandomize=True,
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 3), st.text(max_size=12), st.integers(0, 90))
def test_damaged_predictions_are_named_or_read(tmp_path, number, text, place):
    lines = predicted(tmp_path)
    lines[number] = lines[number][:place] + text
    rewrite(tmp_path, lines)
    try:
        rows, source = read_predictions(tmp_path)
    except UserError as error:
        assert PREDICTIONS in str(error)
    else:
        assert isinstance(source, dict) and {row.theme_seen for row in rows} <= {"Rust", "Sketch"}


@pytest.mark.parametrize("content", [b"a", b'# {"model": "m"}\n' + b"a", b"# " + b"["])
def test_a_bomb_ends_in_a_sentence(tmp_path, content):
    with gzip.open(tmp_path / PREDICTIONS, "wb", 1) as file:
        file.write(content[:-1])
        for _ in range(150):
            file.write(content[-1:] * (1 << 20))
    tracemalloc.start()
    with pytest.raises(UserError, match=f"{PREDICTIONS}: damaged"):
        read_predictions(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 150 << 20
    tracemalloc.stop()
