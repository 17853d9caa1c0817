"""Files of tensors: told by their content, never executed, always finite."""

import json
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from evaluation.core import tensors
from evaluation.core.errors import UserError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pth", ".bin", ".whatever"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "old pickle"])
def test_told_by_content(tmp_path, suffix, kind):
    path = tmp_path / f"a{suffix}"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    if kind != "safetensors" and suffix == ".safetensors":  # a name that promises it
        with pytest.raises(UserError, match=r"a\.safetensors: damaged, or not a file of weights"):
            tensors.read_tensors(path)
    else:
        assert same(tensors.read_tensors(path))


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model_state_dict": STATE},
        {f"module.{key}": value for key, value in STATE.items()},
        {"state_dict": {f"module.{key}": value for key, value in STATE.items()}},
        {"a": {"weight": STATE["a.weight"], "count": STATE["a.count"]}},
    ],
)
def test_forms_that_people_save(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert same(tensors.read_tensors(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "a Git LFS pointer"),
        (b"<html>Access denied</html>", "a web page"),
        (b"\n <!DOCTYPE html>", "a web page"),
        (b"", "damaged, or not a file of weights"),
        (b"hello world\n" * 9, "cannot be loaded|damaged"),
        (b"PK\3\4damaged", "damaged|cannot be loaded"),
        (b"\0" * 10240, "cannot be loaded|damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_what_lies_in_a_checkpoints_place_is_named(tmp_path, content, sentence, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}: ({sentence})"):
        tensors.read_tensors(path)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file"):
        tensors.read_tensors(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"a folder; a file was expected"):
        tensors.read_tensors(tmp_path)


@settings(derandomize=True, max_examples=60)
@given(st.sampled_from(["safetensors", "zip", "old"]), st.floats(0, 0.999), st.binary(max_size=8))
def test_a_file_cut_anywhere_is_a_sentence(tmp_path_factory, kind, share, litter):
    path = tmp_path_factory.mktemp("cut") / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))] + litter)
    try:
        state = tensors.read_tensors(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
    else:  # only what a library does not read was cut
        assert same(state) or not state


@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_nothing_is_executed(tmp_path, form):
    path, evil = tmp_path / "a.pth", {"state_dict": {"a": Touch(tmp_path / "EXECUTED")}}
    if form == "plain":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"a\.pth: (holds other objects|cannot be loaded)"):
        tensors.read_tensors(path)
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize("value, odd", [(float("nan"), "NaN"), (float("inf"), "infinity")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_not_finite_is_neither_read_nor_written(tmp_path, value, odd, dtype):
    bad = STATE | {"b.bias": torch.tensor([0.0, value], dtype=dtype)}
    save_file(bad, tmp_path / "a.safetensors")
    for attempt in (
        lambda: tensors.read_tensors(tmp_path / "a.safetensors"),
        lambda: tensors.save_tensors(tmp_path / "b.safetensors", bad),
    ):
        with pytest.raises(UserError, match=rf"\.safetensors: its tensor b\.bias holds {odd}"):
            attempt()
    assert not (tmp_path / "b.safetensors").exists()


def test_saved_files_are_read_again_and_have_the_same_bytes(tmp_path):
    for name, more in (("a.safetensors", {}), ("a.pth", {}), ("a.ckpt", {"wrapped": True})):
        for number in (1, 2):
            tensors.save_tensors(tmp_path / str(number) / name, STATE, **more)
        assert same(tensors.read_tensors(tmp_path / "1" / name))
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_metadata(tmp_path):
    path = tmp_path / "a.safetensors"
    for metadata, expected in ((None, {}), ({"a": '{"b": 1}'}, {"b": 1})):
        save_file({}, path, metadata)
        assert tensors.read_metadata(path, "a") == expected
    for damaged in ("[]", "{", "3"):
        save_file({}, path, {"a": damaged})
        with pytest.raises(UserError, match=r"a\.safetensors: "):
            tensors.read_metadata(path, "a")
    with pytest.raises(UserError, match=r"b\.safetensors: "):
        tensors.read_metadata(tmp_path / "b.safetensors", "a")


def test_a_cache_that_is_damaged_is_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return STATE | {"a.weight": STATE["a.weight"].T.contiguous().T}

    path = tmp_path / "cache" / "a.safetensors"
    for damage in (None, None, b"", b"xx", json.dumps({}).encode()):
        if damage is not None:
            path.write_bytes(damage)
        state = tensors.cached(path, make)
        assert same(state) and all(tensor.is_contiguous() for tensor in state.values())
    assert len(made) == 4
