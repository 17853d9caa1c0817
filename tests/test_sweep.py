"""python -m scripts.sweep: the plan from what is on disk; what runs, fails, is killed and goes on."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from evaluation import protocol
from evaluation.answers.answer_set import grid
from evaluation.answers.predictions import read_predictions
from evaluation.canvas import answer_name
from evaluation.core.errors import Stopped
from evaluation.core.files import write_json
from evaluation.core.owner import alone
from evaluation.metrics.distances import WEIGHTS
from scripts.sweep import __main__ as sweep
from scripts.sweep import jobs
from scripts.sweep.experiments import Experiment, answer_names, evaluated, painted, planned, prepared, trained
from tests import tiny
from tests.test_readme import parse

REPOSITORY = Path(__file__).parent.parent
MINI = ["--protocol", "mini-8", "--data", "mini"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """File of a protocol of four images that the miniature's classifiers judge."""
    p = replace(
        protocol.load("mini"), themes=("Rust", "Sketch"), objects=("Cats", "Sea"), targets=("Sketch", "Cats"),
        seeds=(188,), steps=2, fid_images=(1, 2),
    )  # fmt: skip
    content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(p).items() if k != "name"}
    path = tmp_path_factory.mktemp("protocol") / "small.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return str(path)


def finish(root, method, target, seconds=3600.0):
    """Files that a finished run leaves, without content."""
    folder = root / method / target
    write_json(folder / "record.json", {"seconds": {"setup": 0, "unlearn": seconds}, "stored_bytes": 10**9})
    for name in ("predictions.csv.gz", "fid.json", "accuracy.json"):
        (folder / "answers").mkdir(exist_ok=True)
        (folder / "answers" / name).write_text("{}")


def dry(root, capsys, *flags):
    sweep.main([*MINI, "--out", str(root), *flags, "--dry-run"])
    return capsys.readouterr().out


def refusal(capsys, *flags):
    with pytest.raises(SystemExit) as stop:
        sweep.main([*MINI, *flags])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_an_empty_folder_has_everything_to_do(tmp_path, capsys):
    text = dry(tmp_path / "new", capsys)
    for method in tiny.METHODS:
        assert f"{method:16}   0 of   8 finished" in text
    assert "8 to train, 8 to evaluate" in text
    assert "not counted" in text and not (tmp_path / "new").exists()


def test_plan_counts_what_is_finished_and_what_it_costs(tmp_path, capsys):
    for target, hours in (("Sketch", 1), ("Rust", 3)):
        finish(tmp_path, "esd", target, 3600 * hours)
    text = dry(tmp_path, capsys, "--methods", "esd", "--workers", "2")
    assert "esd                2 of   8 finished,  0 running    12.00 h   6 to train" in text
    assert "missing: 12.00 hours, 6.00 with 2 at once; 6.000 GB" in text
    assert "esd train" not in text and "esd evaluate" in text


def test_half_an_answer_set_costs_half_and_images_tell_the_disk(tmp_path, capsys):
    cells = grid(protocol.load("mini"))
    for cell in cells[: len(cells) // 2]:
        (tmp_path / "base/answers").mkdir(parents=True, exist_ok=True)
        (tmp_path / "base/answers" / answer_name(*cell)).write_bytes(bytes(10**6))
    for name in ("sheet.png", "Rust_Sea_seed188.jpg"):  # no images of the answer set
        (tmp_path / "base/answers" / name).write_bytes(bytes(10**6))
    write_json(tmp_path / ".sweep/probe.json", {"/evaluate": 7200, "esd/train": 3600})
    base, esd = Experiment(tmp_path, "base", ""), Experiment(tmp_path, "esd", "Sketch")
    assert base.missing(protocol.load("mini"))["evaluate"] == 0.5
    text = dry(tmp_path, capsys, "--methods", "esd", "--targets", "Sketch")
    assert "missing: 4.00 hours" in text and f"{1.5 * len(cells) * 1e6 / 1e9:.3f} GB" in text
    assert esd.missing(protocol.load("mini")) == {"train": 1.0, "evaluate": 1.0}


def test_predictions_without_their_images_are_judged_and_have_no_fid(tmp_path, capsys):
    finish(tmp_path, "esd", "Sketch")
    answers, mini = tmp_path / "esd/Sketch/answers", protocol.load("mini")
    for name in ("fid.json", "accuracy.json"):
        (answers / name).unlink()
    run, names = Experiment(tmp_path, "esd", "Sketch"), sorted(answer_names(mini))
    assert run.missing(mini) == {"evaluate": 0.01}
    (answers / names[0]).write_bytes(b"")
    (answers / "accuracy.json").write_text("{}")
    assert not run.missing(mini)
    text = dry(tmp_path, capsys, "--methods", "esd", "--targets", "Sketch")
    assert "FID cannot be measured for 1 answer sets: images were removed after they were judged" in text
    for name in names:
        (answers / name).write_bytes(b"")
    assert run.missing(mini) == {"evaluate": 0.01}


def test_what_is_made_of_a_missing_file_is_made_again(tmp_path):
    finish(tmp_path, "esd", "Sketch")
    run, mini = Experiment(tmp_path, "esd", "Sketch"), protocol.load("mini")
    for name in answer_names(mini):
        (run.answers / name).write_bytes(b"")
    (run.answers / "predictions.csv.gz").unlink()
    assert run.missing(mini) == {"evaluate": 0.01}
    (run.answers / name).unlink()
    assert run.missing(mini) == {"evaluate": 0.01}
    for name in list(answer_names(mini))[::2]:
        (run.answers / name).unlink(missing_ok=True)
    assert run.missing(mini)["evaluate"] == pytest.approx(0.5, abs=0.01)
    (run.answers / "predictions.csv.gz").write_text("")
    assert not run.missing(mini)
    (run.folder / "record.json").unlink()
    assert run.missing(mini) == {"train": 1.0, "evaluate": 1.0}


def test_fid_waits_for_the_weights_of_its_extractor_and_for_nothing_else(tmp_path, capsys, monkeypatch):
    """Whatever jobs noted and whatever is scored, only fid.json says that FID was measured."""
    finish(tmp_path, "esd", "Sketch")
    answers, mini = tmp_path / "esd/Sketch/answers", protocol.load("mini")
    for name in answer_names(mini):
        (answers / name).write_bytes(b"")
    write_json(tmp_path / ".sweep/esd/Sketch/seconds.json", {"fid": 0.1})
    run, weights = Experiment(tmp_path, "esd", "Sketch"), tmp_path / "inception.pth"
    monkeypatch.setitem(WEIGHTS, mini.fid_extractor, [str(weights)])
    assert run.missing(mini) == {}
    (answers / "fid.json").unlink()
    flags = ("--methods", "esd", "--targets", "Sketch")
    text = dry(tmp_path, capsys, *flags)
    assert "1 of   1 finished" in text and text.count("FID cannot be measured") == 1
    assert f"FID cannot be measured for 2 answer sets: {weights} is not there" in text
    weights.write_bytes(b"")
    assert run.missing(mini) == {"evaluate": 0.01}
    text = dry(tmp_path, capsys, *flags)
    assert "0 of   1 finished" in text and "1 to evaluate" in text and "cannot" not in text


def test_the_shipped_results_are_finished(capsys):
    text = dry(REPOSITORY / "results/mini", capsys, "--protocol", "mini")
    assert "base               1 of   1 finished" in text and "missing: 0.00 hours" in text
    assert text.count("20 of  20 finished") == len(tiny.METHODS)


def test_targets_are_names_or_sets(tmp_path, capsys):
    assert "esd                0 of  20" in dry(tmp_path, capsys, "--methods", "esd", "--targets", "all")
    assert "esd                0 of   2" in dry(
        tmp_path, capsys, "--methods", "esd", "--targets", "Sketch", "Cats", "Sketch"
    )


def test_chains_have_all_their_runs_and_what_is_forgotten_at_once(tmp_path, capsys):
    assert "  4 finished" in dry(tmp_path, capsys, "--methods", "uce", "--targets", "Rust~Cats~Sea", "Sea")
    assert " 10 finished" in dry(tmp_path, capsys, "--methods", "uce", "--targets", "pairs")
    names = [e.target for e in listed(tmp_path, "--methods", "uce", "--targets", "orders")]
    orders = [order.split("~") for order in protocol.load("mini").orders]
    chains = {"~".join(order[: count + 1]) for order in orders for count in range(len(order))}
    assert {*names} == {"", *chains, "Mosaic,Rust,Sketch,Winter"} and len(names) == len({*names})


def listed(root, *flags):
    return sweep.listed(sweep.parse([*MINI, "--out", str(root), *flags]))


def test_a_chain_is_trained_in_one_job_in_its_order(tmp_path):
    """Each run from the one before; what is finished is where it goes on."""
    finish(tmp_path, "sa", "Rust")
    flags = ["--methods", "sa", "--targets", "Rust~Cats~Sea", "Sea", "Rust~Sketch", "Winter"]
    args = sweep.parse([*MINI, "--out", str(tmp_path), *flags, "--runs-per-job", "1"])
    _, chains, *others = planned(sweep.listed(args), args)
    folder = tmp_path / "sa"
    trainings = [tiny.flags_of(step.arguments) for step in chains.steps if step.stage == "train"]
    assert [(f["--target"], f["--from"], f["--out"]) for f in trainings] == [
        ("Cats", str(folder / "Rust"), str(folder / "Rust~Cats")),
        ("Sea", str(folder / "Rust~Cats"), str(folder / "Rust~Cats~Sea")),
        ("Sketch", str(folder / "Rust"), str(folder / "Rust~Sketch")),
    ]
    assert [step.stage for step in chains.steps] == [*["train"] * 3, "evaluate"] and len(chains.folders) == 3
    for job, name in zip(others, ("Sea", "Winter"), strict=True):
        given = tiny.flags_of(job.steps[-2].arguments)
        assert (given["--target"], given["--out"]) == (name, str(folder / name)) and "--from" not in given
    prepared = tiny.flags_of(others[0].steps[0].arguments)
    assert prepared["--target"] == "Sea,Winter"  # a chain's later runs prepare for themselves


def test_runs_are_attacked_in_place_of_judged(tmp_path, capsys):
    finish(tmp_path, "uce", "Sketch")
    flags = ["--methods", "uce", "--targets", "Sketch", "Cats", "--attack", "mini"]
    assert "uce                0 of   2 finished" in (text := dry(tmp_path, capsys, *flags))
    assert "1 to train" in text and "2 to attack" in text and "evaluate" not in text and "FID" not in text
    args = sweep.parse([*MINI, "--out", str(tmp_path), *flags, "--runs-per-job", "2"])
    (job,) = planned(sweep.listed(args), args)
    assert [step.stage for step in job.steps] == ["train", "attack"]
    given = tiny.flags_of(job.steps[-1].arguments)
    assert given["--attack"] == "mini" and given["--base"] == str(tmp_path / "base/attack")
    assert list(job.steps[-1].runs.values()) == [str(tmp_path / "uce" / name) for name in ("Sketch", "Cats")]
    (tmp_path / "uce/Sketch/attack").mkdir()
    (tmp_path / "uce/Sketch/attack/attack.csv").write_text("")
    assert "1 of   2 finished" in dry(tmp_path, capsys, *flags)
    assert "has the prompts of protocol canvas, not of mini" in refusal(capsys, "--attack", "canvas")


def test_the_script_of_the_full_table_plans_ten_methods_on_seventy_targets(tmp_path, capsys, monkeypatch):
    """What main.sh would run, without its set-up: the plan of --dry-run alone; else also the tables."""
    monkeypatch.setitem(WEIGHTS, "inception", [])  # as if they were there
    caught = 'source() { :; }; bash() { python "$@"; }; python() { printf "%s " "$@"; echo; }; '
    caught += "export -f source python bash; command"
    given = {name: tmp_path / name.lower() for name in ("MODEL", "DATA", "RUNS")}
    for folder in given.values():
        folder.mkdir()
    environment = os.environ | {name: str(folder) for name, folder in given.items()}
    lines = [
        subprocess.run(
            ["bash", "-c", f"{caught} bash scripts/tables/main.sh {flags}"],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
        ).stdout.splitlines()
        for flags in ("--dry-run", "--workers 2")
    ]  # fmt: skip
    assert [len(commands) for commands in lines] == [1, 3]
    assert lines[1][0].split() == ["scripts/tables/gate.sh"]  # what fails there ends the script
    assert lines[1][2].split() == ["-m", "evaluation.tables", str(given["RUNS"])]
    module, *flags = lines[0][0].removeprefix("-m ").split()
    assert module == "scripts.sweep"
    sweep.main(flags)
    plan, stages = capsys.readouterr().out, ("train", "evaluate")
    assert plan.startswith(f"{given['RUNS']}: protocol canvas, model {given['MODEL']}\n")
    everything = ", ".join(f"70 to {stage}" for stage in stages)
    methods = [line.split()[0] for line in plan.splitlines() if line.endswith(everything)]
    assert methods == sweep.PAPER and len(methods) == 10 and {*methods} <= {*tiny.METHODS}
    assert re.search(r"base +0 of   1 finished.* 1 to evaluate\n", plan)
    experiments = sweep.listed(sweep.parse(flags))
    work = [stage for experiment in experiments for stage in experiment.missing(protocol.load("canvas"))]
    assert len(experiments) == len(methods) * 70 + 1 and len(work) == len(methods) * 70 * 2 + 1
    assert len(answer_names(protocol.load("canvas"))) == 51 * 20 * 5
    assert not any(given["RUNS"].iterdir())


def test_unknown_names_are_refused(capsys):
    assert "--methods edd: no such method; did you mean" in refusal(capsys, "--methods", "edd")
    assert "Skecth" in refusal(capsys, "--targets", "Skecth")
    assert "--target Van_Gogh: protocol mini-8 has no such images" in refusal(capsys, "--targets", "Van_Gogh")
    assert "--transfer sannet: no such method; did you mean sanet" in refusal(capsys, "--transfer", "sannet")


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--workers 0", "argument --workers: 0: expected a whole number, from 1 to 1024"),
        ("--max-concurrent -1", "argument --max-concurrent: -1: expected a whole number, 1 or more"),
        ("--hours nan", "argument --hours: nan: expected a number"),
        ("--gpus-per-job 0.5", "argument --gpus-per-job: 0.5: expected a whole number"),
        ("--cpus-per-job 0", "argument --cpus-per-job: 0: expected a whole number"),
        ("--sbatch partition", "argument --sbatch: partition: expected KEY=VALUE"),
        ("--data nowhere", "--data nowhere: no such folder"),
        ("--out pyproject.toml/runs", "pyproject.toml is a file; name a folder"),
        ("--model nowhere", "--model nowhere: no such diffusers folder or CompVis file"),
        ("--protocol nowhere.yaml", "--protocol nowhere.yaml: no such protocol"),
        ("--transfer sanet --weights nowhere", "--weights nowhere: no sanet in it"),
        ("--transfer-protocol foo", "--protocol foo: no such protocol"),
        ("--methods --transfer", "nothing to do: name --methods and --targets, or --transfer"),
        ("--flags='a", "--flags 'a: No closing quotation; close the quote"),
        ("--flags=foo=1", "foo=1: no setting is called 'foo'"),
        ("--flags=--foo", "unrecognized arguments: --foo"),
        ("--flags=steps=0 --methods uce esd", "uce: steps=0: no setting is called 'steps'"),
        ("--flags=steps=0 --methods esd", "esd: steps=0: expected a number of 1 or more"),
        ("--flags=--out=/tmp", "--flags --out=/tmp: --out is for the sweep itself to say"),
    ],
)
def test_what_no_experiment_could_do_is_refused_before_the_first(capsys, monkeypatch, flags, message):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(jobs, "run", lambda *_: pytest.fail("started"))
    for more in ([], ["--dry-run"]):
        assert message in refusal(capsys, *flags.split(" "), *more)


@pytest.mark.parametrize("stop, code", [(KeyboardInterrupt, 130), (Stopped, 143)])
def test_a_stopped_sweep_says_what_goes_on(tmp_path, capsys, monkeypatch, stop, code):
    def run(*_):
        raise stop

    monkeypatch.setattr(jobs, "run", run)
    with pytest.raises(SystemExit) as exit:
        sweep.main([*MINI, "--methods", "uce", "--out", str(tmp_path), "--workers", "1"])
    assert exit.value.code == code
    said = "stopped; so are its jobs on this machine. Run the same command again to go on\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("content", ["{", "[]", '{"id": 3}', '{"draw": "long"}', "", "\xff"])
def test_damaged_notes_are_made_again(tmp_path, capsys, content):
    finish(tmp_path, "esd", "Sketch")
    for name in ("esd/Sketch/job.json", "esd/Sketch/seconds.json", "probe.json"):
        path = tmp_path / ".sweep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="latin-1")
    text = dry(tmp_path, capsys, "--methods", "esd")
    assert "esd                1 of   8 finished,  0 running" in text


def test_drawings_are_no_real_images_for_another_protocol(tmp_path, capsys):
    flags = ("--out", str(tmp_path), "--dry-run", "--protocol")
    assert "--data mini: the miniature has no Abstractionism" in refusal(capsys, *flags, "canvas")
    path, small = tmp_path / "large.yaml", OmegaConf.load(REPOSITORY / "evaluation/protocols/mini.yaml")
    OmegaConf.save(small | {"size": 512}, path)
    assert "drawings of 64 pixels are no real images for the 512 pixels of protocol large" in refusal(
        capsys, *flags, str(path)
    )


def test_another_model_in_the_same_folder_is_refused(tmp_path, capsys, monkeypatch):
    for target in protocol.load("mini").targets:
        finish(tmp_path, "uce", target)
    (tmp_path / "base/answers").mkdir(parents=True)
    (tmp_path / "base/answers/predictions.csv.gz").write_text("")
    flags = ["--methods", "uce", "--out", str(tmp_path), "--workers", "1"]
    sweep.main([*MINI, *flags])
    (tmp_path / "elsewhere").mkdir()
    assert "another model" in refusal(capsys, *flags, "--model", str(tmp_path / "elsewhere"))


def test_a_second_sweep_of_a_folder_is_refused(tmp_path, capsys):
    for target in protocol.load("mini").targets:
        finish(tmp_path, "uce", target)
    (tmp_path / "base/answers").mkdir(parents=True)
    (tmp_path / "base/answers/predictions.csv.gz").write_text("")
    with alone(tmp_path / ".sweep"):
        assert "another sweep is at work" in refusal(capsys, "--methods", "uce", "--out", str(tmp_path))


def test_commands_exist_with_these_flags(monkeypatch, tmp_path):
    for method in sweep.TRANSFERRING:
        (tmp_path / method).mkdir()
    flags = [
        "--config",
        str(tmp_path),
        "--weights",
        str(tmp_path),
        "--flags=--seed 1",
        "--transfer",
        "all",
        "--transfer-protocol",
        "transfer-mini",
    ]
    args = sweep.parse([*MINI, *flags])
    args.runs_per_job = 8
    for method in args.methods:
        step = trained(Experiment(args.out, method, "Sketch"), args)
        parsed = parse(step.module, step.arguments, monkeypatch)
        assert (parsed.seed, parsed.overrides, parsed.target) == (1, [], "Sketch")
        if step := prepared(method, ["Sketch", "Cats"], args):
            parse(step.module, step.arguments, monkeypatch)
    base = evaluated([Experiment(args.out, "base", "")], args)
    assert not any(base.runs.values())
    parse(base.module, base.arguments, monkeypatch)
    for method in args.transfer:
        step = painted(Experiment(args.out, "style_transfer", method), args)
        parse(step.module, step.arguments, monkeypatch)


def test_a_job_prepares_once_then_trains_and_evaluates_several_runs(tmp_path, capsys):
    args = sweep.parse([*MINI, "--methods", "sa", "uce", "--out", str(tmp_path), "--runs-per-job", "3"])
    finish(tmp_path, "sa", "Sketch")
    todo = planned(sweep.listed(args), args)
    assert [len(job.folders) for job in todo] == [1, 3, 3, 1, 3, 3, 2]
    stages = [[step.stage for step in job.steps] for job in todo]
    assert stages[:2] == [["evaluate"], ["prepare", *["train"] * 3, "evaluate"]]
    assert stages[4] == [*["train"] * 3, "evaluate"]
    first, second = (job.steps[0].arguments for job in todo[1:3])
    assert first == second and "Sketch" not in first[first.index("--target") + 1].split(",")
    evaluation = todo[1].steps[-1]
    assert list(evaluation.runs) == todo[1].folders
    assert list(evaluation.runs.values()) == [step.arguments[step.arguments.index("--out") + 1]
                                              for step in todo[1].steps[1:-1]]  # fmt: skip


def test_style_transfer_is_finished_when_its_outputs_are_there_or_judged(tmp_path, capsys):
    weights = ["--weights", str(REPOSITORY / "checkpoints/mini/style_transfer")]
    flags, folder = ("--methods", "--transfer", "sanet", "cast", *weights), tmp_path / "style_transfer/sanet"
    text = dry(tmp_path, capsys, *flags)
    assert "style_transfer     0 of   2 finished" in text and "base" not in text
    transfer_protocol = {
        "styles": ["Rust"],
        "objects": ["Cats", "Sea"],
        "contents": [19],
        "references": [1, 2],
    }
    write_json(folder / "manifest.json", {"protocol": transfer_protocol | {"format": "png"}})
    write_json(tmp_path / ".sweep/style_transfer/sanet/seconds.json", {"transfer": 7200.0})
    (folder / "Rust").mkdir()
    for name in ("Cats_test19_ref1", "Cats_test19_ref2", "Sea_test19_ref1", ".Sea_test19_ref2.7"):
        (folder / "Rust" / f"{name}.png").write_bytes(b"")
    text = dry(tmp_path, capsys, *flags)
    assert "style_transfer     0 of   2 finished,  0 running     2.50 h   2 to transfer" in text
    write_json(folder / "losses.json", {"outputs": 4})
    assert "style_transfer     1 of   2 finished" in dry(tmp_path, capsys, *flags)


def run(root, small, model, *flags):
    """The sweep as users start it -> exit code, output."""
    words = ["--out", root, "--protocol", small, "--data", "mini", "--model", model, "--workers", "2", *flags]
    process = subprocess.run(
        [sys.executable, "-m", "scripts.sweep", *map(str, words)],
        cwd=REPOSITORY, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return process.returncode, process.stdout + process.stderr


def contents(root):
    """Everything that figures are made of: pixels, predictions, FID, scores; not what training took."""
    content = {path.relative_to(root): path.read_bytes() for path in root.glob("**/answers/*.png")}
    for path in root.glob("**/answers/*.json"):
        if path.name in ("fid.json", "accuracy.json"):
            result = json.loads(path.read_text())
            result.pop("judged", None)  # quotes the record, with its seconds
            result.get("base", {}).pop("judged", None)
            content[path.relative_to(root)] = result
    for path in root.glob("**/answers/predictions.csv.gz"):
        content[path.relative_to(root)] = read_predictions(path.parent)[0]
    assert len(content) == 3 * (4 + 2 + 1) - 1  # four images, FID, scores (the base has none), predictions
    return content


def stamps(root):
    return {p: p.stat().st_mtime_ns for p in root.glob("*/*/**/*") if p.is_file() and ".sweep" not in p.parts}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_sd, small):
    root = tmp_path_factory.mktemp("sweep")
    code, text = run(root, small, tiny_sd, "--methods", "uce")
    assert code == 0, text
    return root, text


def test_two_real_runs_on_this_machine(swept):
    root, text = swept
    assert all(f"{experiment}: finished" in text for experiment in ("base", "uce/Sketch", "uce/Cats"))
    for target in ("Sketch", "Cats"):
        result = json.loads((root / "uce" / target / "answers/accuracy.json").read_text())
        assert result["target"] == target and "base" in result
    table = subprocess.run(
        [sys.executable, "-m", "evaluation.tables", root], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert "uce" in table.stdout


def test_a_lost_answer_set_is_made_again_to_the_same_bytes_and_nothing_else(swept, tiny_sd, small, tmp_path):
    """What a killed worker leaves: a finished run, a part of the images, a claim."""
    root = tmp_path / "copy"
    shutil.copytree(swept[0], root)
    whole, answers = contents(root), root / "uce/Sketch/answers"
    for name in ("predictions.csv.gz", "Rust_Sea_seed188.png"):
        (answers / name).unlink()
    for name in ("accuracy.json", "fid.json"):  # of images that are made again
        (answers / name).write_text("{}")
    (root / ".sweep/uce/Sketch/seconds.json").unlink()
    (answers / ".claim-0").write_text("another-machine 1")
    others = {path: stamp for path, stamp in stamps(root).items() if answers not in path.parents}
    code, text = run(root, small, tiny_sd, "--methods", "uce")
    assert code == 0 and "uce/Sketch: ended unfinished, is tried again; log" in text
    assert "uce/Sketch: finished" in text and "uce/Cats: finished" not in text
    assert contents(root) == whole and others.items() <= stamps(root).items()


def test_a_failed_run_names_its_log_and_is_tried_again(swept, tiny_sd, small, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(swept[0], root)
    shutil.rmtree(root / "uce/Cats")
    (root / "uce/Cats").write_text("in the way")
    code, text = run(root, small, tiny_sd, "--methods", "uce")
    assert code == 2 and "1 experiments failed; run this again to retry" in text
    log = jobs.latest_job(root / ".sweep/uce/Cats")["log"]
    assert Path(log).read_text() and f"uce/Cats: failed, log {log} (" in text and "is a file" in text
    (root / "uce/Cats").unlink()
    code, text = run(root, small, tiny_sd, "--methods", "uce")
    assert code == 0 and "uce/Cats: finished" in text and contents(root) == contents(swept[0])
