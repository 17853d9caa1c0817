"""Rank correlations by SciPy and on made-up methods, leaderboards, paired differences, and the command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from evaluation.canvas import UNUSED_STYLES
from evaluation.metrics.bootstrap import interval
from style_transfer import compare
from style_transfer.core import agreement, cells
from tests.style_transfer.test_table import about

SHIPPED = Path(__file__).parents[2] / "results/style_transfer"
NAMES = ["good", "fair", "bad"]


@pytest.fixture(scope="module")
def truth():
    """[3 methods, 4 styles, 5 objects, 6 pairs]: the methods are 1 apart, their outputs scatter by 1."""
    noise = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    return np.arange(3.0)[:, None, None, None] + noise


def test_spearman_by_scipy():
    x, y = np.random.default_rng(0).integers(5, size=(2, 7, 20))
    wanted = [spearmanr(a, b).statistic for a, b in zip(x, y)]
    np.testing.assert_allclose(agreement.spearman(x, y), wanted)
    assert (agreement.spearman(np.ones((2, 5)), x[:2, :5]) == 0).all()


def test_over_outputs_compares_outputs_of_one_pair(truth):
    """What makes a style hard for all methods does not count; intervals are the project's."""
    hard = 100 * np.arange(4.0)[None, :, None, None]
    found = agreement.over_outputs(truth + hard, truth - hard)
    assert found["value"] == found["low"] == found["high"] == 1
    assert agreement.over_outputs(-truth, truth)["value"] == -1
    assert agreement.over_outputs(np.zeros_like(truth), truth)["value"] == 0
    other = np.random.default_rng(1).normal(size=truth.shape)
    by_hand = np.array([
        [np.mean([spearmanr(other[:, s, o, k], truth[:, s, o, k]).statistic for k in range(6)])
         for o in range(5)] for s in range(4)
    ])  # fmt: skip
    found = agreement.over_outputs(other, truth)
    assert found["value"] == pytest.approx(by_hand.mean())
    assert (found["low"], found["high"]) == pytest.approx(interval(by_hand))


def test_over_methods_compares_means(truth):
    """A metric may rank the methods and no output, and the other way round."""
    shuffled = truth.copy()
    for method in shuffled:
        np.random.default_rng(2).shuffle(method.reshape(-1))
    means = truth.mean((1, 2, 3))
    assert agreement.over_methods(shuffled, truth)["value"] == 1
    assert agreement.over_outputs(shuffled, truth)["value"] < 0.9
    assert agreement.over_methods(means, truth)["value"] == 1  # a figure without values of outputs
    assert agreement.over_methods(-means, truth)["value"] == -1
    found = agreement.over_methods(truth, truth)
    assert found["value"] == 1 and found["low"] < 1 == found["high"]  # of one method drawn three times: 0


def test_a_replicate_is_a_mean_over_what_was_drawn(truth):
    one = truth.mean(3)
    found = agreement.replicates(one)
    assert found.shape == (3, agreement.REPLICATES)
    for method in range(3):
        low, high = np.percentile(found[method], [2.5, 97.5])
        assert (low, high) == pytest.approx(interval(one[method]))
    assert np.allclose(agreement.replicates(np.ones((2, 4, 5))), 1)


def test_leaderboard(truth):
    board = agreement.leaderboard(truth[[2, 0, 1]], ["bad", "good", "fair"])
    assert [row["method"] for row in board] == NAMES and not any(row["tied"] for row in board)
    assert board[0]["mean"] == pytest.approx(truth[0].mean())
    assert board[0]["low"] < board[0]["mean"] < board[0]["high"]
    alike = np.stack([truth[0], truth[0] + np.random.default_rng(3).normal(size=truth[0].shape) / 50])
    assert [row["tied"] for row in agreement.leaderboard(alike, ["a", "b"])] == [False, True]


def test_differences_are_paired(truth):
    """A shift far below the scatter of the outputs is seen, since it is the same for all pairs."""
    shifted = np.stack([truth[0], truth[0] + 0.01, truth[0]])
    rows = agreement.differences(shifted, NAMES)
    assert [(row["first"], row["second"]) for row in rows] == [
        ("good", "fair"), ("good", "bad"), ("fair", "bad"),
    ]  # fmt: skip
    assert rows[0]["difference"] == pytest.approx(-0.01) and rows[0]["wins"] == 1
    assert rows[0]["high"] < 0 and rows[0]["q"] < 0.05 and rows[2]["low"] > 0 == rows[2]["wins"]
    assert rows[1]["difference"] == 0 and rows[1]["p"] == rows[1]["q"] == 1
    assert all(row["q"] >= row["p"] for row in rows)


# --- the command ------------------------------------------------------------------------------------------


def write(folder, values, **changes):
    """Rows of 2 styles, 2 objects, 2 contents and 3 references, and the figures beside them."""
    grid = [
        (s, o, c, r) for s in ("Rust", "Sketch") for o in ("Cats", "Sea") for c in (19, 20) for r in (1, 2, 3)
    ]
    rows = pd.DataFrame(grid, columns=compare.IDENTITY)
    rows["mini-perceptual_truth"], rows["vgg_style_reference"] = values, 2 * values
    rows["vgg_content_photo"], rows["style_seen"] = -values, ["Rust"] * 12 + ["Sketch"] * 6 + ["Rust"] * 6
    folder.mkdir(parents=True)
    cells.write_table(folder / "losses.csv.gz", rows)
    (folder / "losses.json").write_text(json.dumps(about(folder.name, 1.0, 1.0, **changes)))


@pytest.fixture
def root(tmp_path):
    """A good, a fair and a bad method; one judged in part; one without a network."""
    noise = np.random.default_rng(0).normal(size=24)
    for number, name in enumerate(NAMES):
        figures = {"mini-perceptual": 0.1, "mini-FID": 3.0 - number, "mini-ArtFID": 4.0}
        write(tmp_path / "root" / name, number + noise / 10, perceptual=figures)
    write(tmp_path / "root" / "few", noise, outputs=13)
    write(tmp_path / "root" / "content", noise)
    return tmp_path / "root"


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        compare.main([str(word) for word in words])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_the_command(root, capsys):
    compare.main([str(root)])
    said, left = capsys.readouterr().out, json.loads((root / "compare.json").read_text())
    assert left["methods"] == sorted(NAMES) and left["by"] == "mini-perceptual_truth"
    found = {row["metric"]: row for row in left["correlations"]}
    for metric, value in {"vgg_style_reference": 1, "vgg_content_photo": -1}.items():
        assert found[metric]["methods"]["value"] == found[metric]["outputs"]["value"] == value
    assert found["mini-FID"]["methods"]["value"] == -1 and "outputs" not in found["mini-FID"]
    assert found["style_missed"]["outputs"]["value"] == 0  # the same for all methods
    assert set(left["leaderboards"]) == {"all", "Rust", "Sketch", "Cats", "Sea"}
    assert all([row["method"] for row in board] == NAMES for board in left["leaderboards"].values())
    assert len(left["differences"]) == 3 and "few: judged in part" in said
    assert "| vgg_style_reference |" in said and "content" not in left["methods"]


def test_a_single_style_and_object_have_no_interval(root):
    for path in root.glob("*/losses.csv.gz"):
        rows = pd.read_csv(path)
        cells.write_table(path, rows[(rows["style"] == "Rust") & (rows["object"] == "Cats")])
    compare.main([str(root)])
    text = (root / "compare.json").read_text()
    assert "NaN" not in text and json.loads(text)["leaderboards"]["Rust"][0]["low"] is None


def test_what_classifiers_miss_of_styles_they_know(tmp_path):
    write(tmp_path / "root", np.zeros(24))
    path = tmp_path / "root" / "losses.csv.gz"
    rows = compare.read_rows(path)
    assert rows["style_missed"].sum() == 6 and rows["style_missed"].groupby("style").sum()["Sketch"] == 6
    table = pd.read_csv(path)
    table["style"] = table["style"].replace("Rust", UNUSED_STYLES[0])
    cells.write_table(path, table)
    assert "style_missed" not in compare.read_rows(path)


def test_trade_off(root, capsys, tmp_path):
    """Folders of one method and one operator make a curve; one of a single strength makes none."""
    made = {"method": "artflow", "weights": {}, "options": {"strength": 1.0, "operator": "wct"}}
    write(root / "wct", np.zeros(24), made=made)
    for strength in (0.2, 0.6):
        options = {"strength": strength, "operator": "wct"}
        write(tmp_path / f"others/wct-{strength}", np.zeros(24), made=made | {"options": options})
    other = {"strength": 0.5, "operator": "adain"}
    write(tmp_path / "others/adain-0.5", np.zeros(24), made=made | {"options": other})
    compare.main([str(root), "--strengths", str(tmp_path / "others")])
    rows = json.loads((root / "compare.json").read_text())["strengths"]
    assert [(row["method"], row["strength"]) for row in rows] == [("artflow wct", s) for s in (0.2, 0.6, 1.0)]
    assert rows[0]["vgg_style_truth"] == 1.0 and rows[0]["vgg_content_photo"] == 0.5
    assert "Trade-off over strength" in capsys.readouterr().out


def test_refusals(root, capsys):
    assert "--by vgg_style_refrence: no column" in refused(capsys, root, "--by", "vgg_style_refrence")
    (root / "bad" / "losses.csv.gz").write_bytes(b"\x1f\x8b cut")
    assert "bad/losses.csv.gz: damaged" in refused(capsys, root)
    rows = pd.read_csv(root / "good" / "losses.csv.gz")
    cells.write_table(root / "bad" / "losses.csv.gz", rows[:-1])
    assert "has rows of other outputs than" in refused(capsys, root)
    shutil.rmtree(root / "bad")
    assert "2 methods; at least 3 can be ranked" in refused(capsys, root)


def test_the_shipped_comparison_is_of_the_shipped_rows(tmp_path, capsys):
    """And the README's rows are printed."""
    shutil.copytree(SHIPPED, tmp_path / "root")
    compare.main([str(tmp_path / "root"), "--strengths", str(tmp_path / "root/strengths")])
    left, shipped = (json.loads((r / "compare.json").read_text()) for r in (tmp_path / "root", SHIPPED))
    assert left.keys() == shipped.keys() and left["methods"] == shipped["methods"]
    for ours, theirs in zip(left["correlations"], shipped["correlations"], strict=True):
        assert ours["methods"] == pytest.approx(theirs["methods"], abs=1e-6)
    said = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    readme = (SHIPPED.parents[1] / "style_transfer/README.md").read_text()
    part = readme.partition("<!-- compare -->")[2].partition("<!-- compare -->")[0]
    rows = [" ".join(line.split()) for line in part.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if "---" not in row]
    assert len(rows) > 8 and [row for row in rows if row not in said] == []
