import csv
import io
import json
import statistics

import pytest
import scipy.stats

from evaluation import protocol as protocols
from evaluation import tables
from evaluation.files import write_json
from evaluation.results import collect
from tests import synthetic

RIGHT = synthetic.right


def lost(*names, seeds=(1, 2)):
    """Sees Winter or Trees where one of the names was asked for."""

    def see(cell):
        gone = cell.seed in seeds
        theme = "Winter" if gone and cell.theme in names else cell.theme
        return theme, "Trees" if gone and cell.object in names else cell.object

    return see


@pytest.fixture
def runs(tmp_path):
    """Two methods and a base model that draws Monet right half of the time."""
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path / "base" / "answers", protocol, see=lost("Monet", seeds=(1,)))
    synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, lost("Sketch"))
    synthetic.run_folder(tmp_path, "esd", "Monet", protocol, lost("Monet", seeds=(1,)))
    synthetic.run_folder(tmp_path, "esd", "Cats", protocol, lost("Cats", "Sea"), stored_bytes=1_000_000)
    synthetic.run_folder(tmp_path, "toy", "Sketch+Cats", protocol, RIGHT, peak_memory_bytes=None)
    return tmp_path


def table(capsys, *arguments):
    tables.main([*map(str, arguments), "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    return {row["method"] + row.get("target", ""): row for row in printed["rows"]}, "\n".join(
        printed["notes"]
    )


def test_means_over_targets_and_their_spread(runs, capsys):
    rows, notes = table(capsys, runs)
    esd, base = rows["esd"], rows["base"]
    assert (esd["style_UA"], esd["style_UA_sd"]) == (75, pytest.approx(statistics.stdev([100, 50])))
    assert esd["style_IRA"] == 100 and esd["style_CRA"] == 100
    assert (esd["style_targets"], esd["object_targets"]) == (2, 1)
    assert (esd["object_UA"], esd["object_IRA"], esd["object_CRA"]) == (100, 50, 100)
    assert "object_UA_sd" not in esd  # one target has no spread
    assert (esd["seconds"], esd["memory_GB"], esd["storage_MB"]) == (10, 3, 3)
    assert (base["style_UA"], base["style_IRA"], base["object_UA"]) == (
        25,
        87.5,
        0,
    )  # its own errors, same targets
    assert base["style_targets"] == 2 and "seconds" not in base
    assert rows["toy"]["pair_UA"] == 0 and rows["toy"]["pair_SC"] == 100
    assert "memory_GB" not in rows["toy"] and "style_UA" not in rows["toy"]
    assert synthetic.protocol().hash in notes and synthetic.MODEL in notes


@pytest.mark.parametrize(
    ("name", "style", "obj"),
    [  # one class that fails entirely costs 1/n of the mean over n classes; specs/protocol.md, section 2
        ("canvas", {"IRA": 49, "CRA": 20}, {"IRA": 19, "CRA": 50}),
        ("canvas-published", {"IRA": 50, "CRA": 20}, {"IRA": 19, "CRA": 51}),
    ],
)
def test_denominators(name, style, obj, tmp_path, capsys):
    protocol = protocols.load(name)

    def see(cell):  # one style and one object always fail, and so does the photo theme
        failed = cell.theme in ("Monet", "Seed_Images")
        return "Winter" if failed else cell.theme, "Trees" if cell.object == "Dogs" else cell.object

    for target in ("Sketch", "Cats"):
        synthetic.run_folder(tmp_path, "toy", target, protocol, see)
    row = table(capsys, tmp_path)[0]["toy"]
    failed = 2 if protocol.count_photo else 1
    assert row["style_IRA"] == pytest.approx(100 * (1 - failed / style["IRA"]), abs=1e-5)
    assert row["style_CRA"] == pytest.approx(100 * (1 - 1 / style["CRA"]), abs=1e-5)
    assert row["object_IRA"] == pytest.approx(100 * (1 - 1 / obj["IRA"]), abs=1e-5)
    assert row["object_CRA"] == pytest.approx(100 * (1 - failed / obj["CRA"]), abs=1e-5)


def test_published_row_stands_below_ours(runs, capsys):
    rows, notes = table(capsys, runs)
    assert list(rows)[1:3] == ["esd", "ESD (published)"] and "UCE (published)" not in rows
    published = rows["ESD (published)"]
    assert (published["style_UA"], published["object_CRA"], published["FID"]) == (98.58, 44.23, 65.55)
    assert (published["seconds"], published["storage_MB"], published["style_targets"]) == (6163, 4300, 50)
    assert "not comparison" in notes


def test_fid_is_a_mean_over_all_targets(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)  # where there are no weights
    assert "FID not measured (needs checkpoints/mini/style_classifier" in table(capsys, runs)[1]
    for target, value in (("Sketch", 10.0), ("Monet", 20.0), ("Cats", 60.0)):
        write_json(runs / "esd" / target / "answers" / "fid.json", {"fid": value, "extractor": "classifier"})
    rows, notes = table(capsys, runs)
    assert rows["esd"]["FID"] == 30 and "FID" not in rows["toy"]
    assert "classifier extractor" in notes
    assert "FID not measured for 2 answer sets" in notes  # base and toy


def test_one_row_per_target(runs, capsys):
    rows, _ = table(capsys, runs, "--per-target")
    assert rows["esdSketch"]["UA"] == 100 and rows["esdMonet"]["UA"] == 50 and rows["baseMonet"]["UA"] == 50
    assert rows["esdCats"]["CRA_kept"] == 100
    assert len(rows) == 8


@pytest.mark.parametrize("what", ["protocol", "model", "judges"])
def test_refuses_to_mix(what, runs, capsys):
    protocol = synthetic.protocol(steps=7) if what == "protocol" else synthetic.protocol()
    changes = {"model": {"model": "f" * 16}, "judges": {"judge": "f" * 16}}.get(what, {})
    synthetic.run_folder(runs / "more", "esd", "Winter", protocol, RIGHT, **changes)
    with pytest.raises(SystemExit):
        tables.main([str(runs), str(runs / "more")])
    message = capsys.readouterr().err
    value = protocol.hash if what == "protocol" else "f" * 16
    assert f"has {what} {value}" in message and str(runs / "more") in message and "--any-protocol" in message
    rows, _ = table(capsys, runs, runs / "more", "--any-protocol")
    assert rows[f"esd ({what} {value[:6]})"]["style_targets"] == 1
    assert sum(name.startswith("esd (") for name in rows) == 2


def test_refuses_the_same_run_twice(runs, capsys):
    synthetic.run_folder(runs / "more", "esd", "Sketch", synthetic.protocol(), RIGHT)
    with pytest.raises(SystemExit):
        tables.main([str(runs), str(runs / "more")])
    assert "one method and target" in capsys.readouterr().err


def test_variants_have_rows_of_their_own(runs, capsys):
    synthetic.run_folder(runs / "more", "esd", "Sketch", synthetic.protocol(), RIGHT, variant="published")
    rows, _ = table(capsys, runs, runs / "more")
    assert rows["esd (canvas)"]["style_UA"] == 75 and rows["esd (published)"]["style_UA"] == 0


def test_refuses_answers_of_another_run(runs, capsys):
    record = json.loads((runs / "esd/Sketch/record.json").read_text())
    write_json(runs / "esd/Sketch/record.json", record | {"settings": {"lr": 1}})
    with pytest.raises(SystemExit):
        tables.main([str(runs)])
    assert "settings" in capsys.readouterr().err


def test_names_what_is_not_judged(runs, capsys):
    bare = synthetic.run_folder(runs, "esd", "Winter", synthetic.protocol())
    _, notes = table(capsys, runs)
    assert f"not judged: {bare}; python -m evaluation.predict {bare}/answers" in notes
    (bare / "answers" / "manifest.json").unlink()
    assert f"--run {bare}" in table(capsys, runs)[1]


def test_markdown_and_csv_say_the_same(runs, capsys):
    rows = tables.main_rows(collect([runs])[0])
    tables.main([str(runs)])
    head, rule, *body = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    titles = [title.strip() for title in head.strip("|").split("|")]
    assert len({len(line) for line in (head, rule, *body)}) == 1 and len(body) == len(rows)
    esd = dict(zip(titles, [cell.strip() for cell in body[1].strip("|").split("|")]))
    assert (esd["style UA"], esd["style targets"], esd["FID"]) == ("75.00 ±35.4", "2", "-")
    tables.main([str(runs), "--format", "csv"])
    line = next(
        line for line in csv.DictReader(io.StringIO(capsys.readouterr().out)) if line["method"] == "esd"
    )
    assert (float(line["style_UA"]), line["style_targets"], float(line["style_CRA_kept"])) == (75, "2", 100)


def test_without_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        tables.main([str(tmp_path)])
    assert "no runs" in capsys.readouterr().err


def test_rank_correlation_with_the_published_rows(tmp_path, capsys):
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path / "base" / "answers", protocol)
    synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, lost("Sketch"))  # published style UA 98.58
    synthetic.run_folder(tmp_path, "uce", "Sketch", protocol, lost("Sketch", seeds=(1,)))  # 98.40
    assert not any("rank" in name for name in table(capsys, tmp_path)[0])  # two methods agree by chance
    synthetic.run_folder(tmp_path, "ca", "Sketch", protocol, RIGHT)  # 60.82
    assert table(capsys, tmp_path)[0]["rank correlation (3)"]["style_UA"] == pytest.approx(1)
    synthetic.run_folder(tmp_path, "shs", "Sketch", protocol, RIGHT)  # 95.84, so above ca
    row = table(capsys, tmp_path)[0]["rank correlation (4)"]
    assert row["style_UA"] == pytest.approx(scipy.stats.spearmanr([4, 3, 1, 1], [4, 3, 1, 2]).statistic)
    assert "style_IRA" not in row  # all keep everything: no order to compare
