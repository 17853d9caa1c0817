"""evaluation.tables --adversarial: figures before and after an attack, from its own two files alone."""

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from evaluation import attacks, canvas, tables
from evaluation.answers.attacked import TABLE, Attacked
from evaluation.answers.predictions import Prediction
from evaluation.core.errors import UserError
from evaluation.core.files import read_json, write_json
from evaluation.core.record import write_record
from evaluation.metrics import bootstrap, robustness
from evaluation.metrics.figures import select
from evaluation.reporting.adversarial import collect_attacks

MINI = attacks.load("mini")
OTHER = replace(MINI, tokens=MINI.tokens + 1)


def row(target, cell, before, after, steps=20):
    seen = [cell[:2] if shown else ("Monet", "Bears") for shown in (before, after)]
    plain, last = (Prediction(*cell, *names, 0.25, 0.5, 0.75, 1.0, "0" * 16) for names in seen)
    return Attacked(target, *cell, before, after, steps, "3 4", 'a, \n"b"', plain._replace(sha256=""), last)


def attack(folder, target, before, after, record=None, **changes):
    """An attack on ten prompts: how many are recognised before, and after."""
    cells = [cell for _, cell in robustness.asked(MINI, tuple(canvas.parse_targets(target)))]
    TABLE.write(folder, [row(target, cell, i < before, i < after, 10 * i) for i, cell in enumerate(cells)])
    about = {"attack": MINI.__dict__ | {"hash": MINI.hash}, "model": "0" * 16, "run": record}
    write_json(folder / "manifest.json", about | {"targets": target, "judges": ["a", "b"]} | changes)


def run(root, method, target, before, after, **changes):
    record = {
        "method": method,
        "target": target,
        "variant": "mini",
        "settings": {},
        "seed": 0,
        "model": "0" * 16,
    }
    record |= {"seconds": {}, "peak_memory_bytes": 1, "stored_bytes": 1}
    write_record(root / method / target, record)
    attack(root / method / target / "attack", target, before, after, record, **changes)


@pytest.fixture
def root(tmp_path):
    for target in ("Sketch", "Rust", "Cats"):
        attack(tmp_path / "base/attack" / target, target, 10, 10)
    run(tmp_path, "esd", "Sketch", 0, 5)
    run(tmp_path, "esd", "Rust", 2, 4)
    run(tmp_path, "esd", "Cats", 1, 10)
    run(tmp_path, "seot", "Sketch", 4, 8)
    return tmp_path


def table(capsys, *arguments):
    tables.main([*map(str, arguments), "--adversarial", "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    return {r["method"] + r.get("target", ""): r for r in printed["rows"]}, "\n".join(printed["notes"])


@pytest.mark.parametrize(
    "text", ["\r", "a\rb", "\n", "\r\n", '"', ",", "\x00", "\x1b[31m", "\ufffd", " ", ""]
)
def test_words_of_any_bytes_are_read_as_they_were_written(tmp_path, text):
    rows = [row("Sketch", ("Sketch", name, 188), False, True)._replace(text=text) for name in ("Cats", "Sea")]
    TABLE.write(tmp_path, rows)
    assert TABLE.read(tmp_path) == rows
    first = (tmp_path / "attack.csv").read_bytes()
    TABLE.write(tmp_path, TABLE.read(tmp_path))
    assert (tmp_path / "attack.csv").read_bytes() == first


def test_copies_of_the_base_model_count_once(root, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(root / "base", other / "base")
    run(other, "esd", "Winter", 0, 0)
    for folder in (root, other):
        attack(folder / "base/attack/Winter", "Winter", 10, 10)
    rows, _ = table(capsys, root, other)
    assert (rows["base"]["style_targets"], rows["esd"]["style_targets"]) == (3, 3)
    attack(other / "base/attack/Cats", "Cats", 10, 9)
    with pytest.raises(SystemExit):
        table(capsys, root, other)
    assert "of one method and target; leave one out" in capsys.readouterr().err


def test_figures_of_methods(root, capsys):
    rows, notes = table(capsys, root)
    esd, base = rows["esd"], rows["base"]
    assert (esd["style_UA"], esd["style_UA_attacked"], esd["style_ASR"]) == (90, 55, 45)
    assert esd["style_recovery"] == 100 * (5 / 10 + 2 / 8) / 2 and esd["object_recovery"] == 100
    assert (esd["object_UA"], esd["object_UA_attacked"]) == (90, 0)
    assert (esd["style_targets"], esd["object_targets"], esd["prompts"], esd["steps"]) == (2, 1, 30, 45)
    assert (base["style_UA"], base["style_ASR"], base["prompts"]) == (0, 100, 30)
    assert "style_recovery" not in base  # nothing was forgotten
    low, high = bootstrap.interval(np.array([[50.0], [60.0]]))
    assert (esd["style_UA_attacked_low"], esd["style_UA_attacked_high"]) == (low, high)
    assert MINI.hash in notes and "Targets differ: seot has no Cats, Rust." in notes


def test_published_rows(root, capsys):
    rows, notes = table(capsys, root)
    assert list(rows)[1:3] == ["esd", "ESD (published)"]
    published = rows["ESD (published)"]
    assert (published["style_UA"], published["object_UA_attacked"]) == (98.6, 64.3)
    assert rows["esd"]["style_UA_attacked_diff"] == pytest.approx(55 - 57.2)
    estimated = rows["SEOT, attacked: estimates (published)"]
    assert (estimated["style_UA_attacked"], estimated["object_UA_attacked"]) == (11.1, 4.5)
    assert "read off the paper's figure" in notes


def test_rows_of_targets_and_formats(root, capsys):
    rows, _ = table(capsys, root, "--per-target")
    assert (rows["esdRust"]["UA"], rows["esdRust"]["UA_attacked"], rows["esdRust"]["recovery"]) == (
        80,
        60,
        25,
    )
    assert rows["baseRust"]["UA"] == 0 and len(rows) == 7
    tables.main([str(root), "--adversarial", "--format", "csv"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["style_UA_attacked"] for line in lines[:3]] == ["0.0", "55.0", "57.2"]
    tables.main([str(root), "--adversarial", "--statistics"])
    assert "55.00 [50.0, 60.0]" in capsys.readouterr().out
    tables.main([str(root), "--adversarial", "--format", "latex"])
    assert "55.00 $\\pm$\\,7.1" in capsys.readouterr().out


def test_only_the_attack_is_read_and_what_lacks_one_is_named(root, capsys):
    write_record(root / "uce/Sketch", read_json(root / "esd/Sketch/record.json") | {"method": "uce"})
    (root / "esd/Sketch/record.json").unlink()
    rows, notes = table(capsys, root)
    assert rows["esd"]["style_targets"] == 2 and "uce" not in rows
    assert f"not attacked: {root}/uce/Sketch; python -m machine_unlearning.attack --runs" in notes


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"attack": OTHER.__dict__ | {"hash": OTHER.hash}}, "protocol"),
        ({"model": "1" * 16}, "model"),
        ({"judges": ["a", "c"]}, "judges"),
    ],
)
def test_attacks_of_other_kinds_are_not_mixed(root, changes, what, capsys):
    run(root, "uce", "Sketch", 0, 5, **changes)
    with pytest.raises(SystemExit):
        table(capsys, root)
    assert f"has {what} " in capsys.readouterr().err
    rows, _ = table(capsys, root, "--any-protocol")
    assert any(name.startswith(f"uce ({what} ") for name in rows)


@pytest.mark.parametrize("key, value", [("settings", {"lr": "2.0"}), ("seed", 5)])
def test_an_attack_on_a_run_that_was_made_anew_since_is_refused(root, key, value, capsys):
    path = root / "esd/Sketch/record.json"
    write_json(path, read_json(path) | {key: value})
    with pytest.raises(SystemExit) as stop:
        table(capsys, root)
    message = f"esd/Sketch/attack: made by a run of another {key} than record.json says; remove it and"
    assert stop.value.code == 2 and message in capsys.readouterr().err
    path.unlink()  # an attack tells by itself what it was of
    assert "esdSketch" in table(capsys, root, "--per-target")[0]


def test_folders_that_are_not_attacks(root, tmp_path, capsys):
    def said(*arguments):
        with pytest.raises(SystemExit) as stop:
            tables.main([*map(str, arguments), "--adversarial"])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "no attacks; make them with" in said(tmp_path / "uce")
    assert "--adversarial: a table of its own" in said(root, "--method", "esd")
    attack(root / "esd/Sketch/attack", "Sketch", 0, 1, None, targets="Rust")
    assert "of other targets than manifest.json says" in said(root)
    (root / "esd/Sketch/attack/attack.csv").write_text("target\nSketch\n")
    assert "attack.csv: damaged" in said(root)


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [
        row("Sketch", ("Sketch", "Cats", 188), False, True),
        row("Cats", ("Rust", "Cats", 288), True, True),
    ]
    TABLE.write(tmp_path, rows)
    assert TABLE.read(tmp_path) == rows
    text = (tmp_path / "attack.csv").read_text()
    for old, new in (("0.250000", "much"), ('"0","1"', '"2","1"'), ('"20"', '"some"')):
        (tmp_path / "attack.csv").write_text(text.replace(old, new))
        with pytest.raises(UserError, match="damaged"):
            TABLE.read(tmp_path)


def test_a_cut_table_is_no_table_of_fewer_prompts(root):
    """Wherever it is cut, also between two rows."""
    path = root / "esd/Sketch/attack/attack.csv"
    whole = path.read_bytes()
    for size in (*range(0, len(whole) - 1, 97), *(m.end() for m in re.finditer(b"\n", whole[:-1]))):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"attack\.csv: .*remove the folder and run"):
            collect_attacks([root])
    path.write_bytes(whole)
    assert len(collect_attacks([root])[0]) == 7


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda rows: [*rows, rows[0]], "not the rows of the prompts"),
        (lambda rows: rows + rows, "not the rows of the prompts"),
        (lambda rows: [rows[0]._replace(seed=7), *rows[1:]], "not the rows of the prompts"),
        (
            lambda rows: [rows[0]._replace(before=not rows[0].before), *rows[1:]],
            "not the rows of the prompts",
        ),
        ({"theme_prob": math.nan}, "nan is no probability"),
        ({"object_seen_prob": 1.5}, "1.5 is no probability"),
        ({"theme_seen": "Foo"}, "'Foo' is no label"),
        ({"sha256": "x"}, "sha256"),
    ],
)
def test_rows_that_no_attack_has(root, change, sentence):
    folder = root / "esd/Sketch/attack"
    rows = TABLE.read(folder)
    if isinstance(change, dict):
        rows[0] = rows[0]._replace(last=rows[0].last._replace(**change))
    else:
        rows = change(rows)
    TABLE.write(folder, rows)
    with pytest.raises(UserError, match=sentence):
        collect_attacks([root])


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"tokens": 6}, "was changed since"),
        ({"tokens": "x"}, "tokens is 'x'"),
        ({"later": 1}, "has 'later', which this version of the code does not know"),
        ({"hash": None}, "its 'hash' is None"),
    ],
)
def test_a_manifest_that_was_changed(root, changes, sentence):
    path = root / "esd/Sketch/attack/manifest.json"
    manifest = read_json(path)
    write_json(path, manifest | {"attack": manifest["attack"] | changes})
    with pytest.raises(UserError, match=f"Sketch/attack/manifest.json: .*{sentence}"):
        collect_attacks([root])


def test_seeds_and_targets_are_weighed_alike():
    def rows(target, seed, before, after, count):
        cells = [("Sketch", obj, seed) for obj in MINI.world.objects[:count]]
        return [row(target, cell, i < before, i < after) for i, cell in enumerate(cells)]

    made = (
        rows("Sketch", 1, 0, 2, 4)
        + rows("Sketch", 2, 1, 1, 4)
        + rows("Cats", 1, 0, 2, 2)
        + rows("Cats", 2, 0, 0, 2)
    )
    figures = robustness.by_seed(made)
    assert figures["UA"].tolist() == [1, (0.75 + 1) / 2]
    assert figures["UA_attacked"].tolist() == [(0.5 + 0) / 2, (0.75 + 1) / 2]
    assert figures["recovery"].tolist() == [(0.5 + 1) / 2, 0]
    assert (figures["ASR"] == 1 - figures["UA_attacked"]).all()


@pytest.mark.parametrize("target", ["Sketch", "Cats", "Sketch+Cats", "Sketch,Cats"])
def test_prompts_and_recognition_are_those_of_UA(target):
    targets = tuple(canvas.parse_targets(target))
    asked = robustness.asked(MINI, targets)
    for wanted in targets:
        own = [cell for t, cell in asked if t == wanted]
        assert {(c.theme, c.object) for c in own} == {
            (theme, obj)
            for theme in MINI.world.themes
            for obj in MINI.world.objects
            if wanted.covers(theme, obj) and theme != canvas.PHOTO
        }
        assert {cell.seed for cell in own} == {188}
        domains = select("UA", wanted, targets, MINI.world).domains
        for seen in (("Sketch", "Cats"), ("Sketch", "Sea"), ("Rust", "Cats"), ("Rust", "Sea")):
            picture = row(target, (*seen, 1), True, True).last
            right = {"theme": seen[0] == "Sketch", "object": seen[1] == "Cats"}
            assert robustness.recognised(wanted, picture) == all(right[domain] for domain in domains)
