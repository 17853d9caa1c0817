import csv
import io
import json
import re
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from evaluation import protocol as protocols
from evaluation import tables
from evaluation.answers.predictions import read_predictions, write_predictions
from evaluation.canvas import PHOTO
from evaluation.core.files import write_json
from evaluation.metrics import bootstrap
from evaluation.reporting.collect import collect
from evaluation.reporting.explain import explain
from evaluation.reporting.rows import by_setting, main_rows
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
    """-> rows by name, and remarks; rows of pairs and of several at once are added to those of that name."""
    tables.main([*map(str, arguments), "--format", "json"])
    printed, rows = json.loads(capsys.readouterr().out), {}
    for row in printed["rows"]:
        name = row["method"] + row.get("target", "")
        rows[name] = row | rows.get(name, {})
    return rows, "\n".join(printed["notes"])


def test_pairs_and_several_at_once_stand_in_tables_of_their_own(runs, capsys):
    """Their costs are in no mean with others', and the paper has no row of them."""
    protocol = synthetic.protocol()
    synthetic.run_folder(runs, "esd", "Monet+Sea", protocol, lost("Sea"), peak_memory_bytes=7_000_000_000)
    synthetic.run_folder(runs, "esd", "Monet,Sea", protocol, lost("Sea"), peak_memory_bytes=9_000_000_000)
    tables.main([str(runs)])
    parts = capsys.readouterr().out.split("\n\n")[:3]
    names = [[line.split("|")[1].strip() for line in part.splitlines()[2:]] for part in parts]
    assert names == [["base", "esd", "ESD (published)"], ["base", "esd", "toy"], ["base", "esd"]]
    cells = [[cell.strip() for cell in part.splitlines()[3].split("|")] for part in parts]
    heads = [[cell.strip() for cell in part.splitlines()[0].split("|")] for part in parts]
    assert [row[head.index("memory GB")] for row, head in zip(cells, heads)] == ["3.00", "7.00", "9.00"]
    assert heads[1][2:9] == [f"pair {f}" for f in ("UA", "UA both", "SC", "OC", "UP", "UP both", "FR")]
    assert not any("pair" in title or "several" in title for title in heads[0])


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
        ("canvas-author", {"IRA": 49, "CRA": 20}, {"IRA": 19, "CRA": 51}),
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
    others = failed if protocol.photo_in_ira else 1
    assert row["style_IRA"] == pytest.approx(100 * (1 - others / style["IRA"]), abs=1e-5)
    assert row["style_CRA"] == pytest.approx(100 * (1 - 1 / style["CRA"]), abs=1e-5)
    assert row["object_IRA"] == pytest.approx(100 * (1 - 1 / obj["IRA"]), abs=1e-5)
    assert row["object_CRA"] == pytest.approx(100 * (1 - failed / obj["CRA"]), abs=1e-5)


def test_claims_of_later_papers_stand_below_ours_and_count_for_nothing(tmp_path, capsys):
    for method in ("esd", "ca", "uce", "hirm"):
        for target in ("Sketch", "Monet"):
            synthetic.run_folder(tmp_path, method, target, synthetic.protocol(), see=synthetic.right)
    rows, notes = table(capsys, tmp_path)
    names = list(rows)
    assert names[names.index("hirm") :][:3] == ["hirm", "HiRM-S (claimed)", "HiRM-R (claimed)"]
    assert (rows["HiRM-S (claimed)"]["style_UA"], rows["HiRM-R (claimed)"]["object_CRA"]) == (96.20, 92.57)
    assert "rank correlation (3)" in rows and not any(name.endswith("_diff") for name in rows["hirm"])
    assert "claimed.csv: no two of them compare" in notes
    hirm = {"method", "style_UA", "style_IRA", "style_CRA", "object_UA", "object_IRA", "object_CRA"}
    assert rows["HiRM-S (claimed)"].keys() == hirm | {"seconds", "memory_GB"}


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
    for target, value in (("Sketch", 10.0), ("Monet", 20.0)):
        synthetic.distances(runs / "esd" / target, {target: value})
    rows, notes = table(capsys, runs)
    assert rows["esd"]["FID"] == 15 and "FID of 2 runs of 3 alone: esd." in notes
    synthetic.distances(runs / "esd" / "Cats", {"Cats": 60.0})
    rows, notes = table(capsys, runs)
    assert " alone: esd" not in notes
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
    rows = main_rows(by_setting(collect([runs])[0])[0])
    tables.main([str(runs)])
    first = capsys.readouterr().out.split("\n\n")[0]
    head, rule, *body = first.splitlines()
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


def test_interval_over_one_axis_is_the_textbook_bootstrap():
    values = np.random.default_rng(1).uniform(0, 100, 12)
    draw = {"method": "percentile", "n_resamples": 20_000, "rng": 2}
    theirs = scipy.stats.bootstrap((values,), np.mean, **draw).confidence_interval
    for table in (values[:, None], values[None]):  # targets, or seeds
        ours = bootstrap.interval(table)
        assert ours == pytest.approx(tuple(theirs), abs=1.5)
        assert bootstrap.interval(table) == ours  # nothing but the table decides


def test_interval_sees_targets_and_seeds():
    assert bootstrap.interval(np.array([[3.0]])) is None
    assert bootstrap.interval(np.full((3, 2), 7.0)) == (7, 7)
    assert bootstrap.interval(np.array([[0.0, 100.0]] * 5)) == (0, 100)  # all targets share two seeds
    low, high = bootstrap.interval(np.array([[0.0, 0.0], [100.0, 100.0]] * 10))
    assert 20 < low < 40 and 60 < high < 80  # sd of a mean of 20 halves: 11


def test_figures_of_seeds_are_those_of_their_images(runs):
    synthetic.run_folder(runs, "toy", "Monet,Cats", synthetic.protocol(), lost("Monet", "Sea", seeds=(2,)))
    toy = next(r for r in collect([runs])[0] if (r.method, r.target) == ("toy", "Monet,Cats"))
    assert toy.seeds["UA"].tolist() == [0, 0.5]  # of Monet's images all are lost, of Cats' none
    assert toy.seeds["CRA"].tolist() == [1, 0.75]  # Sea is lost for Monet, no style for Cats
    assert toy.figures["UA"] == 0.25


def test_statistics_stand_in_json_and_behind_an_option(runs, capsys):
    esd = table(capsys, runs)[0]["esd"]
    assert esd["style_UA_median"] == 75 and esd["style_UA_low"] <= 75 <= esd["style_UA_high"]
    assert esd["style_UA_diff"] == pytest.approx(75 - 98.58)
    assert "object_UA_median" not in esd and esd["object_UA_low"] == 100  # one target has seeds
    tables.main([str(runs), "--statistics"])
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in lines[0]].index("style UA")
    body = {line[1].strip(): line[column].strip() for line in lines[2:]}
    assert body["esd"] == f"75.00 [{esd['style_UA_low']:.1f}, {esd['style_UA_high']:.1f}]"
    assert body["difference"] == "-23.58"
    tables.main([str(runs)])
    assert "[" not in capsys.readouterr().out


def test_one_method_in_detail(runs, capsys):
    tables.main([str(runs), "--method", "esd", "--format", "json"])
    rows = {row["figure"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    ua = rows["style_UA"]
    assert (ua["mean"], ua["targets"], ua["images"]) == (75, 2, 12)
    assert ua["worst"] == ["Monet 50.0", "Sketch 100.0"]
    assert rows["storage_MB"]["worst"][-1] == "Cats 1.0" and "images" not in rows["storage_MB"]
    tables.main([str(runs), "--method", "esd"])
    assert "Monet 50.0, Sketch 100.0" in capsys.readouterr().out
    tables.main([str(runs), "--method", "base"])  # one answer set for all targets
    assert (
        "Monet 50.0, Sketch 0.0" not in (out := capsys.readouterr().out) and "Sketch 0.0, Monet 50.0" in out
    )
    with pytest.raises(SystemExit):
        tables.main([str(runs), "--method", "ecd"])
    assert "did you mean esd" in capsys.readouterr().err


def test_worst_are_five(tmp_path, capsys):
    protocol = synthetic.protocol(themes=("Cubism", "Joy", "Monet", "Rust", "Sketch", "Winter"))
    for target in protocol.themes:
        synthetic.run_folder(tmp_path, "toy", target, protocol, lost("Monet"))
    tables.main([str(tmp_path), "--method", "toy", "--format", "json"])
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["targets"] == 6 and len(row["worst"]) == 5 and "Monet 100.0" not in row["worst"]


def test_every_figure_is_explained_by_its_images(runs):
    """The images listed, counted again, give the figure: a check of `explain` against `accuracy`."""
    synthetic.run_folder(runs, "toy", "Monet,Cats", synthetic.protocol(), lost("Monet", "Sea", seeds=(2,)))
    synthetic.run_folder(runs, "toy", "Sketch+Sea", synthetic.protocol(), lost("Sea", "Monet", seeds=(1,)))
    explained = 0
    for result in collect([runs])[0]:
        for figure, value in result.figures.items():
            lines, total = explain(result, figure)
            flags = [word in ("right", "unlearned") for x in lines for word in x["counts_as"].split(" + ")]
            if figure == "FR":
                shares = [int(hits) / int(count) for hits, count in re.findall(r"(\d+) of (\d+)", total)]
                assert len(shares) == 3 and statistics.mean(shares) == pytest.approx(value)
            elif result.kind != "several":
                assert sum(flags) / len(flags) == pytest.approx(value), (result.path, figure)
            assert f"{100 * value:.2f} %" in total
            assert all((result.path / "answers" / x["image"]).suffix == ".png" for x in lines)
            explained += 1
    assert explained > 30


@pytest.mark.parametrize("photo_in_ira, total", [(True, 18), (False, 12)])
def test_a_counted_photo_theme_may_be_no_class_of_a_style_s_ira(photo_in_ira, total, tmp_path):
    """Two seeds of three objects: of six images each, Monet fails on 4, Winter on 1 and the photos on all."""
    protocol = synthetic.protocol(count_photo=True, photo_in_ira=photo_in_ira)
    wrong = {("Monet", "Cats", 2), ("Winter", "Sea", 1), *(("Monet", obj, 1) for obj in protocol.objects)}

    def see(cell):
        failed = cell.theme == PHOTO or (cell.theme, cell.object, cell.seed) in wrong
        return "Sketch" if failed else cell.theme, cell.object

    for target in ("Sketch", "Cats"):
        synthetic.run_folder(tmp_path, "toy", target, protocol, see)
    style, obj = sorted(collect([tmp_path])[0], key=lambda result: result.kind != "style")
    lines, text = explain(style, "IRA")
    assert text == f"IRA = {100 * 7 / total:.2f} %: Sketch 7 of {total}"
    assert len(lines) == total
    assert any(line["image"].startswith(PHOTO) for line in lines) == photo_in_ira
    lines, text = explain(obj, "CRA")  # all 6 of Sketch, 2 of Monet, 5 of Winter, none of the photos
    assert text == f"CRA = {100 * 13 / 24:.2f} %: Cats 13 of 24" and len(lines) == 24


def test_explain_on_the_command_line(runs, capsys):
    tables.main([str(runs), "--explain", "esd/Monet/UA", "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in printed["rows"]][:2] == ["Monet_Cats_seed1.png", "Monet_Sea_seed1.png"]
    first, last = printed["rows"][0], printed["rows"][-1]
    assert (first["asked"], first["seen"], first["counts_as"]) == ("Monet", "Winter", "unlearned")
    assert (first["p_asked"], first["p_seen"], last["counts_as"]) == ("0.500", "0.900", "not unlearned")
    assert printed["notes"][0] == "UA = 50.00 %: Monet 3 of 6"
    tables.main([str(runs), "--explain", "toy/Sketch+Cats/UP"])
    assert "Winter + Trees" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("esd/Monet", "METHOD/TARGET/METRIC"),
        ("esd/Monte/UA", "did you mean Monet"),
        ("uce/Monet/UA", "--explain uce"),
        ("esd/Monet/FID", "it has UA, IRA, CRA"),
        ("esd/Monet/SC", "it has UA, IRA, CRA"),
    ],
)
def test_explain_refuses(path, message, runs, capsys):
    with pytest.raises(SystemExit):
        tables.main([str(runs), "--explain", path])
    assert message in capsys.readouterr().err


def test_suspicious_runs_are_named_below_the_table(tmp_path, capsys):
    """The base model fails on Sea, one run repeats its images, one run keeps no style and one is clean."""
    protocol = synthetic.protocol()
    seen = {"base": lost("Sea"), "esd": lost("Sea", "Sketch"), "toy": lambda cell: ("Sketch", cell.object)}
    synthetic.answer_set(tmp_path / "base" / "answers", protocol, see=seen["base"])
    for method, target in (("esd", "Sketch"), ("esd", "Monet"), ("toy", "Sketch")):
        synthetic.run_folder(tmp_path, method, target, protocol, seen[method])
    for number, folder in enumerate((tmp_path / "base", tmp_path / "esd/Sketch", tmp_path / "toy/Sketch")):
        rows, source = read_predictions(folder / "answers")
        rows = [row._replace(sha256=f"{number:08x}{i:08x}") for i, row in enumerate(rows)]
        write_predictions(folder / "answers", rows, source)
    tables.main([str(tmp_path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("suspicious: ")]
    assert [line.split(": ")[1] for line in lines] == ["base", "esd/Monet", "toy/Sketch"]
    assert "objects are recognised in only 66.7%" in lines[0]
    assert "23 of 24 images are byte for byte" in lines[1]
    assert "with Sketch forgotten, IRA fell to 0.0% from the base model's 100.0%" in lines[2]


def test_latex_is_a_booktabs_table(runs, capsys):
    tables.main([str(runs), "--format", "latex"])
    first, *pairs = capsys.readouterr().out.split("% needs")[1:]
    assert len(pairs) == 1 and "\\multicolumn{8}{c}{Pair}" in pairs[0]
    head, body = first.split("\\midrule")
    body = body.split("\\bottomrule")[0]
    below = pairs[0].split("\\end{tabular}")[1]
    align = head.split("\\begin{tabular}{")[1].split("}")[0]
    rows = body.strip().splitlines()
    assert all(line.endswith(" \\\\") and line.count("&") == len(align) - 1 for line in rows)
    spans = [int(text.split("}")[0]) for text in head.split("\\multicolumn{")[1:]]
    assert head.splitlines()[3].count("&") + sum(spans) - len(spans) == len(align) - 1
    assert " -- " in body and " - " not in body  # what was not measured
    assert "75.00 $\\pm$\\,35.4" in body and "ESD (published)" in body and "\\toprule" in head
    assert all(line.startswith("%") for line in below.strip().splitlines())
    assert not [c for line in rows for c in line.replace("$\\pm$", "").replace("\\_", "") if c in "_±#"]


def test_shipped_results_are_explained():
    """The miniature's real runs, as far as they lie beside the code."""
    root = Path(__file__).parents[2] / "results" / "mini"
    results = collect([root])[0]
    result = next(r for r in results if (r.method, r.target) == ("esd", "Sketch"))
    for figure, value in result.figures.items():
        lines, _ = explain(result, figure)
        assert sum(x["counts_as"] in ("right", "unlearned") for x in lines) / len(lines) == pytest.approx(
            value
        )


def test_a_fid_belongs_to_its_images_and_its_reference(runs, capsys):
    """What is averaged was measured alike: of these images, against the same data, with the same network."""
    synthetic.distances(runs / "esd/Sketch", {"Sketch": 10.0})
    synthetic.distances(runs / "esd/Monet", {"Monet": 20.0}, data_digest="e" * 16)
    with pytest.raises(SystemExit):
        tables.main([str(runs)])
    assert "has FID data_digest" in capsys.readouterr().err
    rows, _ = table(capsys, runs, "--any-protocol")
    assert {row["FID"] for row in rows.values() if "FID" in row and "published" not in row["method"]} == {
        10,
        20,
    }
    synthetic.distances(runs / "esd/Monet", {"Monet": 20.0}, images="0" * 16)
    with pytest.raises(SystemExit):
        tables.main([str(runs)])
    assert "esd/Monet/answers/fid.json: of earlier images" in capsys.readouterr().err


def test_the_base_models_fid_leaves_out_what_each_methods_leaves_out(runs, capsys):
    synthetic.distances(None, {"": 1.0, "Sketch": 2.0, "Monet": 4.0, "Cats": 9.0}, runs / "base/answers")
    rows, _ = table(capsys, runs)
    assert rows["base"]["FID"] == 5 and rows["base"]["KID"] == pytest.approx(
        0.05
    )  # the pair was not measured
    assert {t: table(capsys, runs, "--per-target")[0][f"base{t}"]["FID"] for t in ("Sketch", "Cats")} == {
        "Sketch": 2, "Cats": 9,
    }  # fmt: skip


@pytest.mark.parametrize("key", ["model", "run", "protocol"])
def test_predictions_of_something_else_are_refused(key, runs, capsys):
    """A manifest made anew does not adopt the predictions beside it."""
    path = runs / "esd/Sketch/answers/manifest.json"
    manifest = json.loads(path.read_text())
    other = {"model": "f" * 16, "run": manifest["run"] | {"seed": 5}}
    protocol = synthetic.protocol(steps=7)
    other["protocol"] = asdict(protocol) | {"hash": protocol.hash}
    write_json(path, manifest | {key: other[key]})
    with pytest.raises(SystemExit):
        tables.main([str(runs)])
    assert f"predictions are of another {key}" in capsys.readouterr().err


def test_other_settings_have_a_row_of_their_own(runs, capsys):
    """Of three style targets one was trained with another rate; objects may have settings of their own."""
    protocol = synthetic.protocol()
    gone = lambda cell: ("Monet" if cell.theme == "Winter" else cell.theme, cell.object)  # noqa: E731
    synthetic.run_folder(runs, "esd", "Winter", protocol, gone, settings={"lr": 2e-5})
    synthetic.run_folder(
        runs / "more", "esd", "Sea", protocol, lost("Sea"), settings={"lr": 1e-5, "batch": 4}
    )
    rows, notes = table(capsys, runs, runs / "more")
    assert rows["esd"]["style_targets"] == 2 and rows["esd (lr=2e-05)"]["style_targets"] == 1
    assert rows["esd"]["style_UA"] == 75 and rows["esd (lr=2e-05)"]["style_UA"] == 100
    assert "esd (lr=2e-05) has no" in notes
    assert not any("None" in name for name in rows)  # what one of them lacks is said by the other's value


def test_training_seeds_have_a_row_each_and_a_mean(runs, capsys):
    protocol = synthetic.protocol()
    for seed, see in ((1, lost("Sketch", seeds=(1,))), (2, RIGHT)):
        synthetic.run_folder(runs / f"seed{seed}", "esd", "Sketch", protocol, see, seed=seed)
    rows, _ = table(capsys, runs, runs / "seed1", runs / "seed2")
    assert [rows[f"esd (seed {seed})"]["style_UA"] for seed in (0, 1, 2)] == [75, 50, 0]
    mean = rows["esd (3 seeds)"]
    assert mean["style_UA"] == pytest.approx(125 / 3)
    assert mean["style_UA_sd"] == pytest.approx(statistics.stdev([75, 50, 0])) and "style_targets" not in mean


def test_unequal_targets_are_said(runs, capsys):
    assert "Targets differ: toy has no Cats, Monet, Sketch." in table(capsys, runs)[1]
    assert "Targets differ: esd has no Sketch+Cats." in table(capsys, runs)[1]


@pytest.mark.parametrize("variants", [("canvas", "mini", "published"), ("canvas", "mini"), ("odd", "mini")])
def test_the_papers_row_stands_below_published_or_the_default(variants, tmp_path, capsys):
    for variant in variants:
        synthetic.run_folder(
            tmp_path / variant, "esd", "Sketch", synthetic.protocol(), RIGHT, variant=variant
        )
    names = list(table(capsys, *(tmp_path / variant for variant in variants))[0])
    wanted = next(name for name in ("published", "canvas", "mini") if name in variants)
    assert names[names.index("ESD (published)") - 1] == f"esd ({wanted})"


def test_a_paired_comparison_is_of_the_same_targets_and_noise(runs, capsys):
    """Both methods fail with the same seed: their difference is sure where their means are not."""
    protocol = synthetic.protocol()
    for target in ("Sketch", "Monet", "Cats"):
        synthetic.run_folder(runs, "uce", target, protocol, lost(target, seeds=(1,)))
        synthetic.run_folder(runs, "ca", target, protocol, lost(target, seeds=(1,)))
    synthetic.run_folder(runs, "ca", "Winter", protocol, RIGHT)
    tables.main([str(runs), "--compare", "uce", "ca", "--format", "json"])
    rows = {row["figure"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["style_UA"] | {"figure": ""} == {
        "figure": "", "uce": 50, "ca": 50, "difference": 0, "low": 0, "high": 0, "targets": 2,
    }  # fmt: skip
    tables.main([str(runs), "--compare", "esd", "uce", "--format", "json"])
    rows = {row["figure"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    difference = np.array([[0, 100], [0, 0]])  # Sketch: 100, 100 against 100, 0; Monet: 100, 0 twice
    assert (rows["style_UA"]["difference"], rows["object_UA"]["difference"]) == (25, 50)
    assert (rows["style_UA"]["low"], rows["style_UA"]["high"]) == bootstrap.interval(difference)
    for names, message in ((("esd", "toy"), "no target in common"), (("esd", "ucf"), "did you mean uce")):
        with pytest.raises(SystemExit):
            tables.main([str(runs), "--compare", *names])
        assert message in capsys.readouterr().err


def test_a_base_model_of_another_protocol_is_refused(runs, capsys):
    synthetic.answer_set(runs / "more/base/answers", synthetic.protocol(steps=7), see=RIGHT)
    with pytest.raises(SystemExit):
        tables.main([str(runs), str(runs / "more")])
    assert "more/base has protocol" in capsys.readouterr().err


def test_foreign_images_of_an_unknown_model_compare_with_what_there_is(tmp_path, capsys):
    nothing = {"seconds": {}, "peak_memory_bytes": None, "stored_bytes": None, "seed": None, "settings": {}}
    protocol = synthetic.protocol()
    synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, lost("Sketch"))
    synthetic.run_folder(
        tmp_path, "theirs", "Sketch", protocol, RIGHT, variant="foreign", model=None, **nothing
    )
    rows, notes = table(capsys, tmp_path)
    assert (rows["theirs"]["style_UA"], rows["esd"]["style_UA"]) == (0, 100) and "seconds" not in rows[
        "theirs"
    ]
    assert "Made elsewhere" in notes and "theirs" in notes
