"""Files written whole, whatever the disk does, and what reading a damaged one says."""

import errno
import gzip
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from evaluation.answers.predictions import PREDICTIONS, Prediction, read_predictions, write_predictions
from evaluation.core import files, owner
from evaluation.core.errors import UserError
from evaluation.core.files import (
    UMASK,
    append_json,
    atomic,
    keep_json_lines,
    read_json,
    read_json_lines,
    write_json,
)


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


def test_a_folder_appears_at_once(tmp_path):
    with atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("a")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "a").read_text() == "a" and len([*tmp_path.iterdir()]) == 1


def test_two_threads_or_hosts_of_one_number_write_to_two_names(tmp_path):
    with atomic(tmp_path / "a.png") as one, atomic(tmp_path / "a.png") as other:
        assert one != other and one.suffix == ".png"
        one.write_text("1"), other.write_text("2")


def test_temporaries_of_dead_processes_go_and_of_others_stay(tmp_path, monkeypatch):
    code = "from evaluation.core.files import atomic\nimport os, sys\n"
    code += "with atomic(sys.argv[1]) as t:\n    t.write_text('half')\n    os.kill(os.getpid(), 9)"
    for name in ("a.png", "b.json"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name])
    living = (
        tmp_path / f".c~{files.place(owner.myself())}-{os.getpid()}-{owner.myself().started}-01234567.png"
    )
    elsewhere, old = (tmp_path / f".c~0000000{n}-1-1-01234567.png" for n in (1, 2))
    users = tmp_path / ".hidden~file.png"
    for path in (living, elsewhere, old, users):
        path.write_text("")
    os.utime(old, (1, 1))
    assert len([*tmp_path.iterdir()]) == 5  # the second has cleared what the first left
    files.clear.cache_clear()
    write_json(tmp_path / "d.json", {})
    assert {*tmp_path.iterdir()} == {living, elsewhere, users, tmp_path / "d.json"}


WRITERS = {
    "python": lambda path: path.write_bytes(bytes(1 << 22)),
    "safetensors": lambda path: save_file({"a": torch.zeros(1 << 20)}, path),
    "torch": lambda path: torch.save({"a": torch.zeros(1 << 20)}, path),
    "numpy": lambda path: np.zeros(1 << 19).tofile(path),
    "pillow": lambda path: Image.effect_noise((2000, 2000), 50).save(path, "PNG"),
}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("a disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", disk])


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_named_whatever_library_writes(small_disk, library):
    path = small_disk / "a.bin"
    path.write_text("old")
    with pytest.raises(OSError, match=r"a\.bin") as error, atomic(path) as temporary:
        WRITERS[library](temporary)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_text() == "old" and [*small_disk.iterdir()] == [path]


def test_a_read_only_disk_is_named(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match=r"x/a\.json") as error:
        write_json(small_disk / "x" / "a.json", {})
    assert error.value.errno == errno.EROFS
    with pytest.raises(OSError, match=r"log\.jsonl"):
        append_json(small_disk / "log.jsonl", {})


@pytest.mark.parametrize("library", ["safetensors", "torch"])
def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path, library):
    with pytest.raises(RuntimeError, match=r"^shapes$"), atomic(tmp_path / "a.bin") as temporary:
        WRITERS[library](temporary)
        raise RuntimeError("shapes")
    assert not [*tmp_path.iterdir()]


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5)


@settings(derandomize=True, max_examples=80)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_json_object_is_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "record.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json: damaged \(.*\); remove it and make it again$"):
        read_json(path)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_damage(tmp_path, word):
    (tmp_path / "fid.json").write_text(f'{{"values": {{"": {{"fid": {word}}}}}}}')
    with pytest.raises(UserError, match=rf"fid\.json: damaged \({word} is no number\)"):
        read_json(tmp_path / "fid.json")


@settings(derandomize=True, max_examples=40)
@given(st.integers(0, 60))
def test_a_json_file_cut_anywhere_is_a_sentence(tmp_path_factory, end):
    path = tmp_path_factory.mktemp("json") / "record.json"
    write_json(path, {"target": "Sketch", "seconds": {"setup": 1.5, "unlearn": 2}})
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UserError, match=r"record\.json: damaged"):
        read_json(path)


@pytest.mark.parametrize(
    "content, fault",
    [
        ({}, "it lacks 'target'"),
        ({"target": 3}, "its 'target' is 3"),
        ({"target": None}, "its 'target' is None"),
        ({"target": "a", "count": "2"}, "its 'count' is '2'"),
        ({"target": "a", "count": True}, "its 'count' is True"),
    ],
)
def test_keys_have_their_types(tmp_path, content, fault):
    write_json(tmp_path / "a.json", content)
    with pytest.raises(UserError, match=rf"a\.json: damaged \({fault}\)"):
        read_json(tmp_path / "a.json", target=str, count=int | None)
    write_json(tmp_path / "a.json", {"target": "a", "count": None})
    assert read_json(tmp_path / "a.json", target=str, count=int | None) == {"target": "a", "count": None}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


@settings(derandomize=True, max_examples=60)
@given(st.integers(0, 200), st.binary(max_size=20))
def test_a_log_that_was_cut_goes_on(tmp_path_factory, end, litter):
    """Every line written whole before and after is read, no other is."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    for step in range(5):
        append_json(path, {"step": step, "loss": 0.5})
    whole = path.read_bytes()[:end]
    path.write_bytes(whole + litter.replace(b"\n", b"").replace(b"{", b""))
    kept = [json.loads(line) for line in whole.split(b"\n")[:-1]]
    append_json(path, {"step": 9})
    lines = read_json_lines(path)
    # a cut that took the line's end alone left a whole line
    assert [line for line in lines if line in kept] == kept and lines[-1] == {"step": 9}
    assert len(lines) <= len(kept) + 2
    keep_json_lines(path, lambda line: line["step"] < 2)
    assert read_json_lines(path) == [line for line in lines if line["step"] < 2]


def test_a_log_that_is_not_there_has_no_lines(tmp_path):
    assert read_json_lines(tmp_path / "log.jsonl") == []


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
