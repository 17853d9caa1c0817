import csv

import pytest

from evaluation import figures
from evaluation.reporting.collect import collect
from evaluation.reporting.matrices import interference
from tests import synthetic

PROTOCOL = synthetic.protocol()


def collateral(cell):
    """Sketch is forgotten, Cats are drawn right half of the time, the photos and what is on them never."""
    if cell.theme == "Seed_Images":
        return "Winter", "Trees"
    theme = "Winter" if cell.theme == "Sketch" else cell.theme
    return theme, "Trees" if cell.object == "Cats" and cell.seed == 1 else cell.object


@pytest.fixture
def runs(tmp_path):
    synthetic.answer_set(tmp_path / "base" / "answers", PROTOCOL, see=synthetic.right)
    for target in ("Sketch+Cats", "Cats", "Sketch", "Monet"):
        synthetic.run_folder(tmp_path, "esd", target, PROTOCOL, collateral)
    synthetic.run_folder(tmp_path, "toy", "Sketch", PROTOCOL, synthetic.right)
    return tmp_path


def read(path):
    with open(path, newline="") as file:
        return {(line.pop("method"), line.pop("target")): line for line in csv.DictReader(file)}


def test_rows_and_columns(runs):
    matrices = interference(collect([runs])[0])
    assert list(matrices) == ["esd", "toy"]
    matrix = matrices["esd"]
    assert matrix.rows == ["base", "Monet", "Sketch", "Cats", "Sketch+Cats"]
    assert matrix.columns == [*PROTOCOL.themes, *PROTOCOL.objects] and matrix.split == 4
    assert matrix.marked == [set(), {"Monet"}, {"Sketch"}, {"Cats"}, {"Sketch", "Cats"}]
    assert matrix.values.shape == (5, 7) and (matrix.values[0] == 100).all()


def test_cells_are_accuracies(runs, tmp_path):
    figures.main([str(runs), "--out", str(tmp_path / "out")])
    lines = read(tmp_path / "out" / "interference.csv")
    row = lines["esd", "Sketch"]
    assert (row["Sketch"], row["Seed_Images"], row["Monet"]) == ("0.00", "0.00", "100.00")
    assert (row["Cats"], row["Sea"]) == ("50.00", "100.00")  # the photos do not count in an object's accuracy
    assert lines["toy", "Sketch"]["Sketch"] == "100.00" and ("toy", "base") in lines
    for name in ("interference", "interference_esd", "interference_toy"):
        assert (tmp_path / "out" / f"{name}.svg").exists() and (tmp_path / "out" / f"{name}.png").exists()


def test_one_method_alone(runs, tmp_path, capsys):
    figures.main([str(runs), "--out", str(tmp_path / "out"), "--method", "toy"])
    assert list(read(tmp_path / "out" / "interference.csv")) == [("toy", "base"), ("toy", "Sketch")]
    assert not (tmp_path / "out" / "interference.png").exists()  # a page of several methods
    with pytest.raises(SystemExit):
        figures.main([str(runs), "--out", str(tmp_path / "out"), "--method", "base"])
    assert "--method base:" in capsys.readouterr().err


def test_without_base(runs):
    (runs / "base" / "answers" / "predictions.csv.gz").unlink()
    assert interference(collect([runs])[0])["toy"].rows == ["Sketch"]


def test_refuses_to_mix(runs, tmp_path, capsys):
    synthetic.run_folder(runs, "uce", "Sketch", synthetic.protocol(steps=7), synthetic.right)
    with pytest.raises(SystemExit):
        figures.main([str(runs), "--out", str(tmp_path / "out")])
    assert "protocol" in capsys.readouterr().err and not (tmp_path / "out").exists()
