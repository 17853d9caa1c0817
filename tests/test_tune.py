"""scripts/tune.py: what is tried, what is run, what counts as better, what is refused before a training."""

import importlib
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from evaluation.core.files import write_json
from evaluation.core.record import read_record
from evaluation.judges import judging
from machine_unlearning.core import cli
from scripts import tune
from tests.machine_unlearning.test_evaluate_runs import protocol_file

GRID = {"lr": [1, 2, 3], "alpha": [0.1, 0.2]}


def test_trials_are_the_methods_own_settings_then_others_that_stay_when_more_are_asked_for():
    few, many = (tune.draw(GRID, {"lr": 2, "alpha": 0.1, "steps": 5}, count) for count in (3, 99))
    assert few == many[:3] and few[0] == {}
    others = [tuple(trial.values()) for trial in many[1:]]
    assert len(set(others)) == len(others) == 5 and (2, 0.1) not in others


@pytest.mark.parametrize("method", tune.METHODS)
def test_every_method_has_a_grid_that_it_accepts(method, tmp_path, tiny_sd):
    args = tune.parse([method, "--model", str(tiny_sd), "--out", str(tmp_path), "--trials", "99"])
    for kind, targets in (("style", args.styles), ("object", args.objects)):
        trials = tune.planned(method, kind, targets, args)[0]
        assert len(trials) >= 6 and len({str(run.overrides) for run in trials}) == len(trials)


@pytest.fixture
def calls(monkeypatch, tmp_path, tiny_sd):
    """The modules that were run, in this process; and a function that tunes on images of 16 pixels."""
    monkeypatch.setattr(judging, "MINI_SIZE", 16)
    small, modules = protocol_file(tmp_path), []

    def call(module, words):
        modules.append(module)
        try:
            importlib.import_module(module).main(words)
        except SystemExit as stop:
            return stop.code or 0
        return 0

    def run(*words):
        few = ["--styles", "Rust", "Sketch", "--objects", "Cats", "Sea", "--protocol", small]
        tune.main([*words, "--model", str(tiny_sd), "--out", str(tmp_path / "tune"), *few])
        return pd.read_csv(tmp_path / "tune/uce.csv", keep_default_na=False)

    monkeypatch.setattr(tune, "call", call)
    return modules, run


def test_trials_forget_the_first_targets_and_the_best_of_them_all(calls, capsys):
    modules, run = calls
    table = run("uce", "--trials", "3", "--finalists", "1")
    assert 2 <= modules.count("machine_unlearning.evaluate") <= 3  # own settings, other trials, finalists
    for kind, first, second in (("style", "Rust", "Sketch"), ("object", "Cats", "Sea")):
        rows = table[table.kind == kind]
        tried = rows[rows.target == first]
        assert list(tried.trial) == [0, 1, 2] and tried.settings.iloc[0] == ""
        best = tried.trial[tried.objective[tried.UA.iloc[0] <= tried.UA].idxmax()]
        assert set(rows[rows.target == second].trial) == {0, best}
        np.testing.assert_allclose(rows.objective, rows[["UA", "IRA", "CRA"]].mean(axis=1), atol=1e-4)
    assert "| uce" in capsys.readouterr().out
    modules.clear()
    assert len(run("uce", "--trials", "4", "--finalists", "1")) >= len(table) + 2
    assert 2 <= modules.count("machine_unlearning.uce.train") <= 4  # what was there stays


@pytest.fixture
def scored(calls, monkeypatch):
    """A function that tunes where a target has the figure, or the three, given for every trial."""
    _, run = calls
    within = tune.call

    def tuned(values, *words):
        def call(module, words):
            if module != "machine_unlearning.evaluate":
                return within(module, words)
            for folder in map(Path, words[words.index("--runs") + 1 :]):
                value = values.get(folder.name, [0.6] * 4)[int(folder.parent.name.removeprefix("uce-"))]
                value = value if isinstance(value, tuple) else (value,) * 3
                figures = {name: {"value": number} for name, number in zip(tune.FIGURES, value)}
                (folder / "answers").mkdir()
                write_json(folder / "answers/accuracy.json", {"targets": {folder.name: figures}})
            return 0

        monkeypatch.setattr(tune, "call", call)
        return run("uce", "--trials", "4", *words)

    return tuned


def test_the_best_of_a_kind_forget_the_other_targets(scored):
    table = scored({"Rust": [0.5, 0.2, 0.9, 0.7], "Cats": [0.5, 0.8, 0.1, 0.3]}, "--finalists", "1")
    assert sorted(table[table.target == "Sketch"].trial) == [0, 2]
    assert sorted(table[table.target == "Sea"].trial) == [0, 1]


def test_settings_that_forget_less_are_no_finalists(scored):
    table = scored(
        {"Rust": [(0.9, 0.1, 0.1), (0.8, 1, 1), (1, 0.2, 0.2), (0.9, 0.4, 0.4)]}, "--finalists", "2"
    )
    assert sorted(table[table.target == "Sketch"].trial) == [0, 2, 3]


@pytest.mark.parametrize("own, least, trials", [(0.99, "2", 1), (0.97, "2", 4), (0.97, "4", 1)])
def test_no_trial_where_nothing_can_be_gained(scored, own, least, trials):
    table = scored({"Sketch": [own] * 4}, "--least", least)
    assert len(set(table[table.kind == "style"].trial)) == trials
    assert len(set(table[table.kind == "object"].trial)) == 4


def test_a_run_has_the_settings_of_its_trial(calls, tmp_path):
    _, run = calls
    table = run("uce", "--trials", "2")
    for trial, target, settings in table[["trial", "target", "settings"]].itertuples(index=False):
        kept = read_record(tmp_path / "tune" / f"uce-{trial}" / target)["settings"]
        for word in settings.split():
            key, value = word.split("=")
            assert kept[key] == pytest.approx(float(value))


def test_a_trial_may_fail_but_not_the_methods_own_settings(calls, monkeypatch, tmp_path):
    _, run = calls
    within = tune.call

    def failing(module, words):
        broken = module.endswith("uce.train") and any(word.startswith("lamb=") for word in words)
        return 2 if broken else within(module, words)

    monkeypatch.setattr(tune, "call", failing)
    table = run("uce", "--trials", "3")
    failed = table[(table.trial > 0)]
    assert len(failed) and (failed.objective == "").all() and (table[table.trial == 0].objective != "").all()
    monkeypatch.setattr(tune, "call", lambda module, words: 2)
    shutil.rmtree(tmp_path / "tune/uce-0")
    with pytest.raises(SystemExit) as stop:
        run("uce", "--trials", "3")
    assert stop.value.code == 2


def rows(forgotten=None, **objectives):
    """Trials of one kind: trial -> its objective on each target; and its UA there, if not 1."""
    about = {"method": "esd", "kind": "style", "settings": "lr=1", "seconds": 1.0}
    return pd.DataFrame(
        about | {"trial": int(name[1:]), "target": f"T{n}", "objective": value, "UA": ua}
        for name, values in objectives.items()
        for n, (value, ua) in enumerate(zip(values, (forgotten or {}).get(name, [1.0] * len(values))))
    )


def test_settings_that_forget_less_are_not_the_best():
    (line,) = tune.summary(
        rows({"t1": [1.0, 0.9], "t2": [1.0, 1.0]}, t0=[0.5, 0.6], t1=[0.9, 0.9], t2=[0.6, 0.7])
    )
    assert (line["best"], line["least gain"]) == ("65.0", "10.0")


def test_the_gain_is_that_on_the_target_where_it_is_least():
    (line,) = tune.summary(rows(t0=[0.5, 0.6], t1=[0.9, 0.5], t2=[0.6, 0.7], t3=[0.99]))
    assert (line["best"], line["least gain"], line["before"]) == ("70.0", "-10.0", "55.0")
    (line,) = tune.summary(rows(t0=[0.5, 0.6], t1=[0.5, 0.5], t2=[0.6, 0.7]))
    assert (line["best"], line["least gain"], line["runs"]) == ("65.0", "10.0", "6")
    (line,) = tune.summary(rows(t0=[0.5, 0.6], t1=[math.nan, math.nan]))
    assert (line["best"], line["least gain"]) == ("55.0", "0.0")


@pytest.mark.parametrize(
    "words, message",
    [
        (["ese"], "ese: no such method; did you mean"),
        (["esd", "--styles", "Cats"], "--styles Cats: not a style"),
        (["esd", "--objects", "Rust"], "--objects Rust: not an object"),
        (["esd", "--objects", "Catz"], "Catz"),
        (["esd", "--model", "checkpoints/mini"], "--model checkpoints/mini: tables show it"),
        (["esd", "--model", "checkpoints/mini-near"], "--model checkpoints/mini-near: tables show it"),
        (["esd", "--model", "nowhere"], "--model nowhere"),
        (["esd", "--protocol", "mine"], "--protocol mine: no such protocol"),
        ([], "holds no trials; name methods to tune"),
    ],
)
def test_refusals(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        tune.main(["--model", str(tmp_path), "--out", str(tmp_path / "out"), *words])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_the_training_that_is_not_shipped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        tune.main(["esd"])
    message = (
        "--model checkpoints/mini-second: not there yet; `bash scripts/make_mini.sh checkpoints/mini-second"
    )
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "method,kind\nesd,style\n", "a\n\0", "method,kind,trial,target\nesd,style,1,Rust\n"]
)
def test_a_file_that_is_no_table_of_trials(text, tmp_path, capsys):
    (tmp_path / "esd.csv").write_text(text)
    with pytest.raises(SystemExit) as stop:
        tune.main(["--out", str(tmp_path)])
    assert stop.value.code == 2 and "esd.csv: not a table of trials; remove it" in capsys.readouterr().err


def test_a_grid_that_the_method_does_not_know_is_refused_before_a_training(
    calls, monkeypatch, tmp_path, capsys
):
    modules, run = calls
    for grid, message in (
        ({"lrr": [1]}, "tune: lrr: expected a setting"),
        ({"lamb": 3}, "tune: lamb: expected a setting of the method and a list"),
        ({"lamb": [-1.0]}, "lamb=-1.0"),
        ({"lamb": []}, "tune: lamb: expected a setting of the method and a list"),
        (["lamb"], "has no section tune"),
        ({}, "has no section tune"),
    ):
        folder = tmp_path / "methods"
        (folder / "uce").mkdir(parents=True, exist_ok=True)
        config = OmegaConf.load("machine_unlearning/uce/config.yaml")
        config.tune = grid
        OmegaConf.save(config, folder / "uce/config.yaml")
        monkeypatch.setattr(cli, "METHODS", folder)
        with pytest.raises(SystemExit) as stop:
            run("uce")
        assert stop.value.code == 2 and message in capsys.readouterr().err and not modules


def test_a_run_of_other_settings_is_not_taken_for_a_trial(calls, tmp_path, capsys, tiny_sd):
    _, run = calls
    target = ["--target", "Rust", "--model", str(tiny_sd), "--out", str(tmp_path / "tune/uce-0/Rust")]
    importlib.import_module("machine_unlearning.uce.train").main([*target, "lamb=7"])
    with pytest.raises(SystemExit):
        run("uce")
    assert (
        "uce-0/Rust: was made with other settings; remove it or name another --out" in capsys.readouterr().err
    )
