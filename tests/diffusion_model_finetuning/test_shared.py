"""Work that processes share: once, the last block waited for, a dead process's block taken over."""

import multiprocessing
import os
import time

import pytest
import torch

from diffusion_model_finetuning.core.shared import cached_once, shared
from evaluation.answers.claims import agree

FORK = multiprocessing.get_context("fork")


def work(folder, seconds, dies=False):
    for _, path in shared(folder, {i: folder / f"{i}.txt" for i in range(4)}, lambda path: path.exists()):
        time.sleep(seconds)
        if dies:
            os._exit(1)
        with open(path, "x") as file:  # a second time would be an error
            file.write(str(os.getpid()))


def processes(*works):
    for process in (started := [FORK.Process(target=work, args=args) for args in works]):
        process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def test_all_blocks_are_made_once_and_are_there_for_all(tmp_path):
    assert processes(*[(tmp_path, 0.2)] * 3) == [0, 0, 0]
    makers = {(tmp_path / f"{i}.txt").read_text() for i in range(4)}
    assert len(makers) > 1


def test_a_process_that_dies_is_replaced(tmp_path):
    assert sorted(processes((tmp_path, 0.1, True), (tmp_path, 0.3))) == [0, 1]
    assert len([*tmp_path.glob("*.txt")]) == 4


def test_it_waits_longer_than_claims_are_patient(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.answers.claims.PATIENCE_SECONDS", 0)
    slow = FORK.Process(target=work, args=(tmp_path, 1.0))
    slow.start()
    while not [*tmp_path.glob(".claim-*")]:
        time.sleep(0.01)
    work(tmp_path, 0.0)
    assert len([*tmp_path.glob("*.txt")]) == 4
    slow.join()
    assert slow.exitcode == 0


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_file_of_tensors_is_made_by_one(tmp_path, content):
    path, made = tmp_path / "x.safetensors", []
    if content:
        path.write_bytes(content)
        agree(tmp_path / ".claims", {}, "shared work")

    def make():
        made.append(1)
        return {"x": torch.ones(2)}

    for _ in range(2):
        assert torch.equal(cached_once(path, make)["x"], torch.ones(2))
    assert made == [1]
