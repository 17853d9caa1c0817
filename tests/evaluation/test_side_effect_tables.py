"""evaluation.tables --side-effects: rows, remarks and refusals; what is expected is counted by hand."""

import csv
import gzip
import io
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evaluation import tables
from evaluation.canvas import PHOTO
from evaluation.metrics import bootstrap
from evaluation.reporting.rows import add_mean
from tests import synthetic

ROOT = Path(__file__).parents[2]
PROTOCOL = synthetic.protocol(themes=("Monet", "Pastel", PHOTO, "Rust", "Sketch", "Winter"))


def see(**labels):
    """`Sketch="Winter"`: images asked for with that name are seen as that; with `Sketch_1` of that seed only,
    with `Sketch_1_Cats` of that theme, seed and object only."""

    def label(name, *about):
        keys = ("_".join([name, *map(str, about[:count])]) for count in (2, 1, 0))
        return next((labels[key] for key in keys if key in labels), name)

    return lambda cell: (label(cell.theme, cell.seed, cell.object), label(cell.object, cell.seed, cell.theme))


@pytest.fixture
def runs(tmp_path):
    base = see(Monet_1_Cats="Sketch", Winter_2_Sea="Monet", Sea_1_Monet="Trees")
    synthetic.answer_set(tmp_path / "base/answers", PROTOCOL, see=base)
    made = {
        "Sketch": see(Sketch="Rust", Monet_2="Rust", Cats_1_Sketch="Sea"),
        "Monet": see(Monet_1="Winter", Monet_2_Sea="Rust", Winter="Rust"),
        "Pastel": synthetic.right,
        "Sea": see(Sea="Trees", Trees="Cats"),
    }
    for target, judged in made.items():
        synthetic.run_folder(tmp_path, "esd", target, PROTOCOL, judged)
    return tmp_path


def table(capsys, *arguments):
    tables.main([*map(str, arguments), "--side-effects", "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    return {r["method"] + r.get("target", ""): r for r in printed["rows"]}, "\n".join(printed["notes"])


def test_means_over_targets(runs, capsys):
    rows, notes = table(capsys, runs)
    row = rows["esd"]
    # Sketch's neighbour Monet gains a third with seed 1 and loses all with seed 2; of Monet's neighbours
    # Sketch loses nothing, Winter all and two thirds; Pastel has none
    sketch, monet = 100 * (-1 / 3 + 1) / 2, 100 * (1 + 2 / 3) / 2 / 2
    assert row["style_near"] == pytest.approx((sketch + monet) / 2) and row["style_neighbours"] == 1 + 2
    table_of_seeds = np.array([[-100 / 3, 100], [50, 100 / 3]])
    low, high = bootstrap.interval(table_of_seeds)
    assert (row["style_near_low"], row["style_near_high"]) == pytest.approx((low, high))
    assert row["style_near_sd"] == pytest.approx(table_of_seeds.mean(1).std(ddof=1))
    # the rest of Pastel gains what the base model gets wrong: Monet and Winter a third with a seed each, of 4
    assert row["style_rest"] == pytest.approx((-100 / 6 / 3 + 0 + -100 / 12) / 3)
    assert row["style_other"] == pytest.approx(100 * (5 / 6 + 1 + 1) / 3)
    assert row["style_other_base"] == pytest.approx(100 * (1 + 5 / 6 + 1) / 3)
    assert row["style_became_top"] == pytest.approx((100 + 75) / 2) and row["style_unsure"] == 0
    assert (row["object_near"], row["object_neighbours"], row["object_targets"]) == (100, 1, 1)
    assert row["object_became_top"] == 100 and row["object_rest"] == 0
    base = rows["base"]
    assert (base["style_near"], base["object_near"], base["style_neighbours"]) == (0, 0, 3)
    assert "seconds" not in row and "Without neighbours: Pastel." in notes


def test_no_mean_is_minus_zero():
    add_mean(row := {}, "near", [[-0.1, -0.2, 0.3], [0.1, 0.2, -0.3]])
    assert "-0.0" not in map(str, row.values()) and row["near"] == 0
    add_mean(row := {}, "near", [[-0.1, -0.2, 0.3]])
    assert str(row["near"]) == "0.0"


def test_rows_of_targets(runs, capsys):
    rows, _ = table(capsys, runs, "--per-target")
    sketch, monet, pastel = (rows[f"esd{target}"] for target in ("Sketch", "Monet", "Pastel"))
    assert (sketch["neighbours"], sketch["nearest"], sketch["became"]) == (1, ["Monet"], ["Rust 100.0"])
    assert (monet["neighbours"], monet["nearest"]) == (2, ["Sketch", "Winter"])
    assert monet["became"] == ["Winter 50.0", "Monet 33.3", "Rust 16.7"] and monet["became_top"] == 75
    assert (pastel["neighbours"], pastel["nearest"], pastel["became"]) == (0, [], ["Pastel 100.0"])
    assert "near" not in pastel and "became_top" not in pastel
    assert rows["baseMonet"]["became"] == ["Monet 83.3", "Sketch 16.7"]


def test_formats(runs, capsys):
    tables.main([str(runs), "--side-effects", "--per-target"])
    lines = capsys.readouterr().out.splitlines()
    heads = [head.strip() for head in lines[0].split("|")[1:-1]]
    assert heads[:6] == ["method", "target", "near", "rest", "neighbours", "nearest"]
    assert any(
        "| Sketch, Winter |" in line and "Winter 50.0, Monet 33.3, Rust 16.7" in line for line in lines
    )
    tables.main([str(runs), "--side-effects", "--per-target", "--format", "csv"])
    lines = {
        line["method"] + line["target"]: line for line in csv.DictReader(io.StringIO(capsys.readouterr().out))
    }
    assert lines["esdMonet"]["nearest"] == "Sketch; Winter" and lines["esdMonet"]["near_low"]
    tables.main([str(runs), "--side-effects", "--statistics"])
    assert "37.50 [" in capsys.readouterr().out
    tables.main([str(runs), "--side-effects", "--format", "latex"])
    assert r"\multicolumn{8}{c}{Style}" in capsys.readouterr().out


def test_without_the_base_model(runs, capsys):
    (runs / "base/answers/predictions.csv.gz").unlink()
    rows, notes = table(capsys, runs)
    assert [*rows] == ["esd"] and "No row of the base model" in notes and "No near, rest, neighbours" in notes
    names = {name.removeprefix("style_") for name in rows["esd"] if name.startswith("style_")}
    assert {"other", "became_top", "unsure"} <= names and "Without neighbours" not in notes
    assert not names & {"near", "rest", "neighbours", "other_base"}
    rows, _ = table(capsys, runs, "--per-target")
    assert "nearest" not in rows["esdSketch"] and rows["esdSketch"]["became"] == ["Rust 100.0"]


def test_a_base_model_of_another_origin_is_none(runs, capsys):
    other = synthetic.protocol(themes=PROTOCOL.themes, steps=7)
    synthetic.run_folder(runs, "uce", "Sketch", other, synthetic.right)
    rows, notes = table(capsys, runs, "--any-protocol")
    uce = next(row for name, row in rows.items() if name.startswith("uce"))
    assert "style_near" not in uce and "No near, rest, neighbours" in notes


def test_several_targets_pairs_and_chains(runs, capsys):
    synthetic.run_folder(
        runs, "esd", "Sketch,Winter", PROTOCOL, see(Sketch="Rust", Winter="Monet", Monet="Rust")
    )
    synthetic.run_folder(runs, "esd", "Sketch+Cats", PROTOCOL, synthetic.right)
    synthetic.run_folder(runs, "esd", "Sketch~Monet", PROTOCOL, synthetic.right)
    rows, notes = table(capsys, runs, "--per-target")
    several = rows["esdSketch,Winter"]
    assert several["nearest"] == ["Sketch: Monet", "Winter: Monet"] and several["neighbours"] == 2
    assert several["became"] == ["Sketch: Rust 100.0", "Winter: Monet 100.0"]
    assert several["near"] == pytest.approx(100 * (2 / 3 + 1) / 2) and several["became_top"] == 100
    assert not {"esdSketch+Cats", "esdSketch~Monet"} & {*rows}
    assert "Not above: 1 runs of pairs" in notes and "Not above: 1 runs that went on" in notes
    tables.main([str(runs), "--side-effects"])
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| method")]
    assert len(heads) == 2 and "several near" in heads[1]


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--method esd", "--side-effects: a table of its own"),
        ("--compare esd uce", "--side-effects: a table of its own"),
        ("--explain esd/Sketch/UA", "--side-effects: a table of its own"),
        ("--sequential", "not allowed with argument"),
        ("--adversarial", "not allowed with argument"),
        ("--probe noise", "not allowed with argument"),
    ],
)
def test_refusals(words, sentence, runs, capsys):
    with pytest.raises(SystemExit) as stop:
        tables.main([str(runs), "--side-effects", *words.split()])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_nothing_to_show(tmp_path, capsys):
    synthetic.run_folder(tmp_path, "esd", "Sketch+Cats", PROTOCOL, synthetic.right)
    with pytest.raises(SystemExit) as stop:
        tables.main([str(tmp_path), "--side-effects"])
    assert stop.value.code == 2 and "--side-effects: no judged run" in capsys.readouterr().err


def test_the_shipped_miniature(capsys):
    """Sketch's neighbour and what it lost with CA, counted in the files themselves."""

    def read(run):
        with gzip.open(ROOT / "results/mini" / run / "answers/predictions.csv.gz", "rt") as file:
            next(file)
            return [*csv.DictReader(file)]

    base, ours = read("base"), read("ca/Sketch")
    confused = Counter()
    for row in base:
        names = {row["theme"], row["theme_seen"]}
        if "Sketch" in names and len(names) == 2 and PHOTO not in names:
            confused += Counter(names - {"Sketch"})
    right = [sum(r["theme"] == r["theme_seen"] == "Ukiyoe" for r in rows) for rows in (base, ours)]
    start = time.monotonic()
    rows, _ = table(capsys, ROOT / "results/mini", "--per-target")
    assert time.monotonic() - start < 30
    sketch = rows["caSketch"]
    assert sketch["nearest"] == [*confused] == ["Ukiyoe"]
    assert sketch["near"] == pytest.approx(100 * (right[0] - right[1]) / 20)
