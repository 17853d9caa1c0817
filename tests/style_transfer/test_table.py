"""The table of style transfer, from files as the judges leave them."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from style_transfer import table


def about(method, vgg, vit, **changes):
    """A losses.json with these means of the style losses."""
    spread = {"std_style": 0.1, "std_object": 0.2, "std_content": 0.3}
    losses = {
        "vgg_style_truth": vgg,
        "vgg_content_photo": 0.5,
        "vit_style_truth": vit,
        "vit_content_photo": 2.0,
    }
    return {
        "protocol": {"name": "transfer-mini", "hash": "abc"},
        "data": "mini",
        "judges": {"vgg": "1234", "style_classifier": "5678"},
        "made": {"method": method, "weights": {}, "options": {}},
        "outputs": 24,
        "of": 24,
        "summary": {name: {"mean": value} | spread for name, value in losses.items()},
        "accuracy": {"outputs": 24, "style": 0.75, "object": 0.5},
        "styles": {"Rust": {}, "Sketch": {}},
        "objects": {"Cats": {}},
        "perceptual": {"mini-perceptual": 0.02, "mini-FID": 3.0, "mini-ArtFID": 4.08},
        "cost": {
            "outputs": 24, "seconds": 0.5, "seconds_network": 0.25, "peak_memory": 2 * 10**9,
            "stored_bytes": 3 * 10**6, "devices": ["cpu"],
        },
    } | changes  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Two methods, one in two folders, and the trivial rows, at 4 and 40, 3 and 50."""

    def add(folder, *args, **changes):
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / folder / "losses.json").write_text(json.dumps(about(*args, **changes)))

    add("artflow_adain", "artflow", 2.0, 39.0)
    add("artflow_wct", "artflow", 2.0, 45.0)
    add("content", "content", 4.0, 40.0)
    add("sanet", "sanet", 3.5, 39.0)
    add("statistics", "statistics", 3.0, 50.0)
    add("zero", "zero", 3.0, 40.0)  # no better than the best trivial one
    tmp_path.joinpath("painted").mkdir()  # not judged
    return tmp_path, add


def printed(root, capsys, *flags):
    table.main([str(root), "--format", "json", *flags])
    return json.loads(capsys.readouterr().out)


def test_rows(root, capsys):
    rows = printed(root[0], capsys)["rows"]
    assert [row["method"] for row in rows] == [
        "content", "statistics", "artflow_adain", "artflow_wct", "sanet", "zero",
    ]  # fmt: skip
    assert [row.get("beats_trivial") for row in rows] == [None, None, "vgg, vit", "vgg", "vit", "neither"]
    assert rows[4] == {
        "method": "sanet", "vgg_style_truth": 3.5, "std_style": 0.1, "std_object": 0.2, "std_content": 0.3,
        "vgg_content_photo": 0.5, "vit_style_truth": 39.0, "vit_content_photo": 2.0, "style_accuracy": 75.0,
        "object_accuracy": 50.0, "mini-perceptual": 0.02, "mini-FID": 3.0, "mini-ArtFID": 4.08,
        "seconds_network": 0.25, "seconds": 0.5, "memory_GB": 2.0, "storage_MB": 3.0, "beats_trivial": "vit",
    }  # fmt: skip


def test_the_table_is_left_for_the_report(root, capsys):
    """Whatever format is printed: texts as the table shows them, beside the values to sort by."""
    printed(root[0], capsys)
    left = json.loads((root[0] / "table.json").read_text())
    ours, paper = left["tables"]
    assert (
        ours["rows"][4][:2] == [["sanet", "sanet"], ["3.500", 3.5]] and ours["names"][-1] == "beats_trivial"
    )
    assert len(paper["rows"]) == 9 and left["notes"][-1] == table.NOTE


@pytest.mark.parametrize("results", ["style_transfer", "style_transfer_held_out"])
def test_the_shipped_table_is_of_the_shipped_losses(results, tmp_path, capsys):
    shipped = Path(__file__).parents[2] / "results" / results
    for path in shipped.glob("*/losses.json"):
        (tmp_path / path.parent.name).mkdir()
        shutil.copy(path, tmp_path / path.parent.name)
    table.main([str(tmp_path)])
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(
        (shipped / "table.json").read_text()
    )


def test_published_rows_are_marked(root, capsys):
    made = printed(root[0], capsys)
    sanet = made["published"][0]
    assert len(made["published"]) == 9 and sanet["method"] == "SANet (published)"
    assert (sanet["style_loss_mean"], sanet["style_loss_std_content_image"]) == (23.48, 1.87)
    assert (sanet["content_loss_mean"], sanet["seconds"], sanet["storage_MB"]) == (0.85, 0.29, 110)
    assert "measured by another protocol" in made["notes"][-1]


def test_formats(root, capsys):
    table.main([str(root[0])])
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| sanet")]
    assert len(lines) == 1
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert cells[:2] == ["sanet", "3.500"] and cells[-1] == "vit"
    ours, theirs = text.split(table.NOTE)
    assert "SANet (published)" in theirs and "published" not in ours
    table.main([str(root[0]), "--format", "latex"])
    text = capsys.readouterr().out
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2 and "artflow\\_wct" in text
    assert "% " + table.NOTE in text
    table.main([str(root[0]), "--format", "csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 6 + 9 and rows[4]["vgg_style_truth"] == "3.5" and rows[6]["vgg_style_truth"] == ""


def test_what_does_not_compare_is_refused(root, capsys):
    folder, add = root
    for changes, sentence in (
        ({"protocol": {"name": "transfer", "hash": "xyz"}}, "sanet: was judged under another protocol than"),
        ({"data": "mini:1"}, "sanet: was judged under another data than artflow_adain"),
        ({"judges": {"vgg": "other"}}, "vgg: not the same file for all folders"),
    ):
        add("sanet", "sanet", 3.5, 39.0, **changes)
        with pytest.raises(SystemExit):
            table.main([str(folder)])
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        table.main([str(folder / "sanet")])
    assert "no folder with a losses.json" in capsys.readouterr().err


def test_what_was_judged_in_part_is_no_row(root, capsys):
    """By the new files, by those of before, and where nothing else is there."""
    folder, add = root
    (folder / "painted" / "losses-partial.json").write_text(json.dumps(about("painted", 0.0, 0.0)))
    add("few", "few", 0.0, 0.0, outputs=13)
    add("selected", "selected", 0.0, 0.0, outputs=6, of=6)
    made = printed(folder, capsys)
    assert not {"painted", "few", "selected"} & {row["method"] for row in made["rows"]}
    for name in ("painted", "few", "selected"):
        assert f"{name}: judged in part; not in the table." in made["notes"]
    add("alone/few", "few", 0.0, 0.0, outputs=13)
    with pytest.raises(SystemExit):
        table.main([str(folder / "alone")])
    assert "no folder was judged in full" in capsys.readouterr().err


def test_a_folder_of_few_figures(root, capsys):
    """A foreign one, judged by the classifiers alone; and none of the trivial rows."""
    folder, _ = root
    made = about(None, 0.0, 38.0, judges={"vgg": None}, accuracy={})
    del made["perceptual"], made["cost"], made["summary"]["vgg_style_truth"]
    (folder / "foreign").mkdir()
    (folder / "foreign" / "losses.json").write_text(json.dumps(made))
    made = printed(folder, capsys)
    row = next(row for row in made["rows"] if row["method"] == "foreign")
    assert row["beats_trivial"] == "vit" and "vgg_style_truth" not in row and "seconds" not in row
    (folder / "content" / "losses.json").unlink()
    made = printed(folder, capsys)
    assert not any("beats_trivial" in row for row in made["rows"])
    assert any("Trivial rows missing: content;" in note for note in made["notes"])
