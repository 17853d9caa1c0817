"""A run folder: what is logged, when a record is written, what a second run does."""

import json
from argparse import Namespace

import pytest
import torch
from omegaconf import OmegaConf

from evaluation.core.errors import Finished, UserError, command
from evaluation.core.record import read_record
from evaluation.core.run import Run


def arguments(out, **changes):
    plain = {
        "target": "Sketch",
        "out": str(out),
        "seed": 3,
        "device": "cpu",
        "variant": "canvas",
        "settings": OmegaConf.create({"lr": 0.1, "edit": ["a", "b"]}),
        "model": "model",
        "start": None,
        "data": None,
    }
    return Namespace(**plain | changes)


def optimise(run, steps=3):
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    for _ in run.steps(steps):
        loss = weight.pow(2).sum()
        loss.backward()
        run.step(optimizer, loss=loss)
        assert weight.grad is None
    return weight.item()


def test_record_and_log(tmp_path):
    with Run(arguments(tmp_path / "run"), "esd") as run:
        run.model = "f" * 16
        assert optimise(run) == pytest.approx(0.8**3)
        (run.out / "weights.safetensors").write_bytes(b"x" * 77)
        assert not (run.out / "record.json").exists()  # written last
    record = read_record(tmp_path / "run")
    assert record["settings"] == {"lr": 0.1, "edit": ["a", "b"]} and record["model"] == "f" * 16
    assert (record["method"], record["target"], record["variant"], record["seed"]) == (
        "esd",
        "Sketch",
        "canvas",
        3,
    )
    assert record["stored_bytes"] == 77 and record["peak_memory_bytes"] > 1e6
    assert record["seconds"]["setup"] >= 0 and record["seconds"]["unlearn"] >= 0
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx([1, 0.64, 0.4096])


def test_numbers_of_all_kinds_are_logged(tmp_path):
    with Run(arguments(tmp_path), "esd") as run:
        loss = torch.tensor(0.25, requires_grad=True)
        run.note(loss=loss, low=loss.bfloat16(), count=3, share=0.5, projected=True, wide=loss.double())
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line == {"loss": 0.25, "low": 0.25, "count": 3, "share": 0.5, "projected": 1, "wide": 0.25}
    assert list(line) == ["loss", "low", "count", "share", "projected", "wide"]


def test_finished_is_skipped_and_other_settings_refused(tmp_path):
    with Run(arguments(tmp_path), "esd"):
        pass
    with pytest.raises(Finished, match="already finished"):
        Run(arguments(tmp_path), "esd")
    for key, other in {"seed": 4, "target": "Rust", "settings": OmegaConf.create({"lr": 0.2})}.items():
        with pytest.raises(UserError, match=f"another {key}"):
            Run(arguments(tmp_path, **{key: other}), "esd")


def test_a_finished_run_under_another_path_of_its_model(tmp_path):
    with Run(arguments(tmp_path), "esd") as run:
        run.starts_from("f" * 16)
        run.note(loss=torch.tensor(1.0))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files["log.jsonl"]
    moved = arguments(tmp_path, model="elsewhere/model")
    with pytest.raises(Finished, match="already finished"), Run(moved, "esd") as run:
        run.starts_from("f" * 16)
    with pytest.raises(UserError, match="another model; choose"), Run(moved, "esd") as run:
        run.starts_from("a" * 16)
    with pytest.raises(UserError, match="another seed"):  # without loading the model
        Run(arguments(tmp_path, model="elsewhere/model", seed=4), "esd")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_no_record_after_a_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt), Run(arguments(tmp_path), "esd"):
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="loss is nan; lower lr"), Run(arguments(tmp_path), "esd") as run:
        run.note(loss=torch.tensor(float("nan")))
    assert not (tmp_path / "record.json").exists()
    with Run(arguments(tmp_path), "esd"):  # simply done again
        pass
    assert (tmp_path / "record.json").exists()


def test_seed_rules_every_generator(tmp_path):
    def draw(name, seed):
        run = Run(arguments(tmp_path / name, seed=seed), "esd")
        return [torch.rand(1).item(), torch.rand(1, generator=run.generator).item()]

    assert draw("a", 3) == draw("b", 3) and draw("a", 3) != draw("a", 4)


def test_command_ends_with_a_sentence(capsys):
    @command
    def main(argv):
        raise argv

    for error, message in (
        (UserError("--x: no"), "error: --x: no\n"),
        (FileNotFoundError(2, "no", "gone.txt"), "error: gone.txt: no such file or folder\n"),
        (
            OSError(28, "full", "big"),
            "error: big: the disk is full; free some space and run the same command again\n",
        ),
    ):
        with pytest.raises(SystemExit) as exit:
            main(error)
        assert exit.value.code == 2 and capsys.readouterr().err == message
    assert main(Finished("done")) is None and capsys.readouterr().out == "done\n"
    with pytest.raises(KeyError):  # one of ours to mend
        main(KeyError("a"))
