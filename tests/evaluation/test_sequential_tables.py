"""Tables of requests in turn; what is expected is counted by hand from what the judges are made to see."""

import csv
import io
import json
import statistics

import numpy as np
import pytest

from evaluation import tables
from evaluation.metrics import bootstrap
from evaluation.metrics.published import sequences
from evaluation.reporting.collect import collect
from evaluation.reporting.sequences import chains, orders, triangle
from tests import synthetic

PROTOCOL = synthetic.protocol()


def see(gone=(), seed_1=()):
    """Styles become Winter and objects Trees: those of `gone` always, those of `seed_1` with that seed."""

    def judged(cell):
        names = {*gone, *(seed_1 if cell.seed == 1 else ())}
        return (
            "Winter" if cell.theme in names else cell.theme,
            "Trees" if cell.object in names else cell.object,
        )

    return judged


def seconds(value):
    return {"seconds": {"setup": 1.0, "unlearn": value - 1.0}}


@pytest.fixture
def runs(tmp_path):
    """Sketch comes back by half once Monet is asked for, and Cats are lost; the other order loses nothing."""
    synthetic.answer_set(tmp_path / "base" / "answers", PROTOCOL, see=see(seed_1=["Monet"]))
    made = {
        "Sketch": (see(["Sketch"]), 10.0),
        "Sketch~Monet": (see(["Monet", "Cats"], ["Sketch"]), 20.0),
        "Monet": (synthetic.right, 40.0),
        "Monet~Sketch": (see(["Monet", "Sketch"]), 60.0),
        "Monet,Sketch": (see(["Monet"]), 30.0),
    }
    for target, (judged, cost) in made.items():
        synthetic.run_folder(tmp_path, "esd", target, PROTOCOL, judged, **seconds(cost))
    return tmp_path


def table(capsys, *arguments):
    tables.main([*map(str, arguments), "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    return printed["rows"], "\n".join(printed["notes"])


def row(rows, method="esd"):
    (found,) = [row for row in rows if row["method"] == method]
    return found


def test_what_the_last_model_forgot_and_kept(runs, capsys):
    rows, notes = table(capsys, runs, "--sequential")
    esd = row(rows)
    second, first = ((esd[f"order{n}_SU"], esd[f"order{n}_SR"]) for n in (1, 2))  # Monet, Sketch is the first
    assert first == (75, pytest.approx((100 + 200 / 3) / 2)) and second == (100, 100)
    assert (esd["SU"], esd["SR"]) == (87.5, pytest.approx((100 + 250 / 3) / 2))
    assert esd["SU_sd"] == pytest.approx(statistics.stdev([75, 100]))
    assert esd["order2_SU_sd"] == pytest.approx(statistics.stdev([50, 100]))
    assert esd["rebound"] == ((50 - 100) + (100 - 0)) / 2
    assert esd["requests"] == 2 and esd["seconds"] == ((10 + 20) + (40 + 60)) / 2
    assert (esd["at_once_UA"], esd["at_once_SR"]) == (50, 100)
    assert "Order 1: Monet, then Sketch." in notes and "Order 2: Sketch, then Monet." in notes
    base = row(rows, "base")
    assert (base["SU"], base["SR"], base["requests"]) == (25, 100, 2) and "order1_SU" not in base


def test_intervals_are_over_orders_or_requests_and_seeds(runs, capsys):
    esd = row(table(capsys, runs, "--sequential")[0])
    span = bootstrap.interval(np.array([[100, 100], [100, 50]]))
    assert (esd["SU_low"], esd["SU_high"]) == pytest.approx(span)
    span = bootstrap.interval(np.array([[100, 0], [100, 100]]))
    assert (esd["order2_SU_low"], esd["order2_SU_high"]) == pytest.approx(span)


def test_the_whole_triangle(runs, capsys):
    rows, _ = table(capsys, runs, "--sequential", "--per-target")
    ours = [row for row in rows if row["method"] == "esd"]
    values = {(row["order"], row["figure"]): [row.get(f"after_T{i}") for i in (1, 2)] for row in ours}
    assert values == {
        (1, "UA of Monet"): [0, 100],
        (1, "UA of Sketch"): [None, 100],
        (1, "SR"): [100, 100],
        (2, "UA of Sketch"): [100, 50],
        (2, "UA of Monet"): [None, 100],
        (2, "SR"): [100, pytest.approx(250 / 3)],
    }
    paper = {row["figure"]: row for row in rows if row["method"] == "ESD (published)"}
    assert [paper["UA of T1"][f"after_T{i}"] for i in range(1, 7)] == [100, 99, 95, 87, 81, 75]
    assert "after_T3" not in paper["UA of T4"] and paper["SR"]["after_T6"] == 12.95


def test_the_papers_row(runs, capsys):
    rows, notes = table(capsys, runs, "--sequential")
    paper = row(rows, "ESD (published)")
    assert rows.index(paper) == rows.index(row(rows)) + 1 and "not comparison" in notes
    assert paper["SU"] == pytest.approx((75 + 79 + 98 + 99 + 99 + 100) / 6)
    assert (paper["SR"], paper["rebound"], paper["requests"]) == (12.95, -25, 6)
    assert row(rows)["SU_diff"] == pytest.approx(87.5 - paper["SU"])
    names, shapes = sequences(), {(ua.shape, sr.shape) for _, ua, sr in sequences().values()}
    assert len(names) == 8 and shapes == {((6, 6), (6,))} and "seot" not in names


def test_main_table_leaves_chains_out_and_says_so(runs, capsys):
    rows, notes = table(capsys, runs)
    targets = [(r["method"], r.get("style_targets"), r.get("several_targets")) for r in rows]
    once = [("base", 2, None), ("esd", 2, None), ("ESD (published)", 50, None)]
    assert targets == [*once, ("base", None, 1), ("esd", None, 1)]
    assert rows[1]["style_UA"] == 50 and rows[1]["seconds"] == 25  # the single runs alone
    assert "Not above: 2 runs that went on from another;" in notes and "then" not in notes
    targets = [(r["method"], r["target"]) for r in table(capsys, runs, "--per-target")[0]]
    once = ["Monet", "Sketch", "Monet,Sketch"]
    assert sorted(targets) == sorted((method, target) for method in ("base", "esd") for target in once)
    (runs / "esd/Monet,Sketch/record.json").unlink()  # now only a chain forgot both
    assert not any("several_UA" in r for r in table(capsys, runs)[0])


def test_a_chain_that_lacks_a_run_says_so(runs, capsys):
    (runs / "esd/Sketch/answers/predictions.csv.gz").unlink()
    rows, notes = table(capsys, runs, "--sequential")
    esd = row(rows)
    assert esd["SU"] == 87.5 and esd["rebound"] == 100 and esd["seconds"] == 100  # of the other order
    assert "No judged run: esd, order 2, after T1 (Sketch)." in notes and "order 1," not in notes
    assert f"not judged: {runs}/esd/Sketch" in notes
    ours = table(capsys, runs, "--sequential", "--per-target")[0]
    back = next(r for r in ours if (r.get("order"), r["figure"]) == (2, "UA of Sketch"))
    assert "after_T1" not in back and back["after_T2"] == 50


def test_a_run_of_another_method_is_no_part_of_a_chain(runs, capsys):
    """SEOT after ESD: the SEOT run that forgot Sketch alone is not where it started."""
    synthetic.run_folder(runs, "seot", "Sketch", PROTOCOL, see(["Sketch"]))
    earlier = [{"method": "esd", "target": "Sketch"}]
    synthetic.run_folder(runs, "seot", "Sketch~Monet", PROTOCOL, see(["Monet"]), earlier=earlier)
    rows, notes = table(capsys, runs, "--sequential")
    assert row(rows, "seot")["SU"] == 50 and "rebound" not in row(rows, "seot")
    assert "No judged run: seot, order 2, after T1 (Sketch)." in notes


def test_longer_chains_and_other_requests_have_rows_of_their_own(runs, capsys):
    synthetic.run_folder(runs, "esd", "Sketch~Monet~Cats", PROTOCOL, see(["Sketch", "Monet"]))
    rows, _ = table(capsys, runs, "--sequential")
    both, three = (next(r for r in rows if r["method"] == "esd" and r["requests"] == n) for n in (2, 3))
    assert both["SU"] == 100 and "order2_SU" not in both  # Monet, Sketch alone; the other order went on
    assert three["SU"] == pytest.approx(200 / 3) and "at_once_UA" not in three
    assert [r["requests"] for r in rows if r["method"] == "base"] == [2, 3]


def test_settings_variants_and_seeds_have_rows_of_their_own(runs, capsys):
    """The rate of the object's run is what objects have, so a chain of both kinds is no row of its own."""
    for target in ("Cats", "Sketch~Cats"):
        synthetic.run_folder(runs, "esd", target, PROTOCOL, see(["Cats"]), settings={"lr": 5})
    found = chains(collect([runs])[0])
    assert {chain.label for chain in found} == {"esd"} and (("Sketch", "Cats")) in orders(found)
    changed = {"seed": {"seed": 7}, "lr": {"settings": {"lr": 2}}, "variant": {"variant": "published"}}
    for folder, change in changed.items():
        for target in ("Sketch", "Sketch~Monet"):
            synthetic.run_folder(runs / folder, "esd", target, PROTOCOL, see(["Sketch"]), **change)
        rows, _ = table(capsys, runs, runs / folder, "--sequential")
        ours = [r for r in rows if r["method"].startswith("esd") and r["requests"] == 2]
        own = next(r for r in ours if r["method"] in ("esd (seed 7)", "esd (lr=2)", "esd (published)"))
        assert own["SU"] == 50 and own["rebound"] == 0 and len(ours) == 3  # Sketch, Cats is the third


def test_pairs_in_turn_keep_what_is_around_them(tmp_path, capsys):
    """Forgotten: Cats in Sketch, Sea in Monet. Winter is always seen as Monet, Trees as Cats with seed 1."""

    def judged(cell):
        theme = "Monet" if cell.theme == "Winter" else cell.theme
        gone = cell[:2] in [("Sketch", "Cats"), ("Monet", "Sea")]
        obj = "Cats" if cell.object == "Trees" and cell.seed == 1 else cell.object
        return theme, ("Trees" if obj == "Cats" else "Cats") if gone else obj

    for target in ("Sketch+Cats", "Sketch+Cats~Monet+Sea"):
        synthetic.run_folder(tmp_path, "toy", target, PROTOCOL, judged)
    toy = row(table(capsys, tmp_path, "--sequential")[0], "toy")
    # Sketch+Cats: SC Sketch of Sea, Trees; OC Cats in Monet, Winter; UP of Monet: Trees, Winter: Sea, Trees
    first = (1 + 1 + (1 + 0 + 0 + 0.5 + 1 + 0.5) / 6) / 3
    # Monet+Sea: SC Monet of Cats, Trees; OC Sea in Sketch, Winter; UP of Sketch: Trees, Winter: Cats, Trees
    second = (1 + 1 + (1 + 0 + 0 + 0.5 + 1 + 0.5) / 6) / 3
    assert toy["SU"] == 100 and toy["SR"] == pytest.approx(100 * (first + second) / 2)


def test_formats_say_the_same(runs, capsys):
    esd = row(table(capsys, runs, "--sequential")[0])
    tables.main([str(runs), "--sequential", "--format", "csv"])
    captured = capsys.readouterr()
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(captured.out))}
    assert float(lines["esd"]["SU"]) == esd["SU"] and float(lines["esd"]["SR_low"]) == esd["SR_low"]
    assert "Order 1" in captured.err
    tables.main([str(runs), "--sequential"])
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    titles = [title.strip() for title in lines[0]]
    assert titles[1:6] == ["method", "requests", "SU", "SR", "rebound"] and titles[-2] == "order2 SR"
    ours = next(line for line in lines if line[1].strip() == "esd")
    assert ours[3].strip() == "87.50 ±17.7"
    tables.main([str(runs), "--sequential", "--format", "latex", "--per-target"])
    body = capsys.readouterr().out.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(body) == 6 + 7 and {line.count("&") for line in body} == {8}
    tables.main([str(runs), "--sequential", "--statistics"])
    assert f"[{esd['SU_low']:.1f}, {esd['SU_high']:.1f}]" in capsys.readouterr().out


def test_protocols_are_mixed_only_if_asked_for(runs, capsys):
    for target in ("Sketch", "Sketch~Monet"):
        synthetic.run_folder(runs / "more", "esd", target, synthetic.protocol(steps=7), synthetic.right)
    with pytest.raises(SystemExit):
        tables.main([str(runs), str(runs / "more"), "--sequential"])
    assert "--any-protocol" in capsys.readouterr().err
    rows, _ = table(capsys, runs, runs / "more", "--sequential", "--any-protocol")
    hashes = [synthetic.protocol(steps=7).hash[:6], PROTOCOL.hash[:6]]
    assert [row(rows, f"esd (protocol {digits})")["SU"] for digits in hashes] == [0, 87.5]


@pytest.mark.parametrize("flags", ["--method esd", "--compare esd uce", "--explain esd/Sketch/UA"])
def test_is_a_table_of_its_own(runs, flags, capsys):
    with pytest.raises(SystemExit) as stop:
        tables.main([str(runs), "--sequential", *flags.split()])
    assert stop.value.code == 2 and "leave out --method" in capsys.readouterr().err


def test_without_chains_says_how_to_make_some(tmp_path, capsys):
    synthetic.run_folder(tmp_path, "esd", "Sketch", PROTOCOL, synthetic.right)
    with pytest.raises(SystemExit) as stop:
        tables.main([str(tmp_path), "--sequential"])
    assert stop.value.code == 2 and "scripts/sequence.sh METHOD T1 T2" in capsys.readouterr().err


def test_explains_the_images_of_a_chain(runs, capsys):
    rows, notes = table(capsys, runs, "--explain", "esd/Sketch~Monet/UA")
    assert "UA = 75.00 %: Sketch 3 of 6, Monet 6 of 6" in notes and len(rows) == 12


def test_nothing_left_to_keep_is_no_retention(tmp_path, capsys):
    """All styles and objects asked for: no class is left, and nothing fails."""
    names = [*(name for name in PROTOCOL.themes if name != "Seed_Images"), *PROTOCOL.objects]
    synthetic.run_folder(tmp_path, "toy", "~".join(names), PROTOCOL, synthetic.right)
    toy = row(table(capsys, tmp_path, "--sequential")[0], "toy")
    assert toy["SU"] == 0 and "SR" not in toy and "seconds" not in toy
    (chain,) = chains(collect([tmp_path])[0])
    assert triangle(chain).forgotten.shape == (6, 6, 2)
