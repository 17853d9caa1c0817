import json

import numpy as np
import pytest

from evaluation import accuracy
from evaluation import protocol as protocols
from evaluation.answers.answer_set import grid
from evaluation.canvas import PHOTO, parse_targets
from evaluation.core.errors import UserError
from evaluation.metrics import figures
from tests import synthetic
from tests.synthetic import from_rows


def score(protocol, target, see=synthetic.right):
    return figures.score(synthetic.seen(protocol, see), protocol, parse_targets(target))


@pytest.mark.parametrize(
    ("name", "style", "obj"),
    [  # specs/protocol.md, section 2: (UA images, IRA classes, CRA classes, CRA images, CRA_kept images)
        ("canvas", (100, 49, 20, 5000, 4900), (250, 19, 50, 5000, 4750)),
        ("canvas-published", (100, 50, 20, 5100, 5000), (255, 19, 51, 5100, 4845)),
        ("canvas-author", (100, 49, 20, 5100, 5000), (255, 19, 51, 5100, 4845)),
        ("canvas-lite", (10, 9, 5, 100, 90), (20, 4, 10, 100, 80)),
    ],
)
def test_denominators_of_the_shipped_protocols(name, style, obj):
    protocol = protocols.load(name)
    for target, (shown, ira, cra, images, kept) in {"Sketch": style, "Cats": obj}.items():
        result = score(protocol, target)["targets"][target]
        assert result["UA"] == {"value": 0.0, "images": shown}
        assert (result["IRA"]["classes"], result["IRA"]["images"]) == (ira, shown * ira)
        assert (result["CRA"]["classes"], result["CRA"]["images"]) == (cra, images)
        assert result["CRA_kept"]["images"] == kept
        assert result["IRA"]["value"] == result["CRA"]["value"] == result["CRA_kept"]["value"] == 1


@pytest.mark.parametrize(("name", "styles"), [("canvas", 50), ("canvas-published", 51)])
def test_denominators_of_pairs(name, styles):
    result = score(protocols.load(name), "Sketch+Cats")["targets"]["Sketch+Cats"]
    images = {figure: entry["images"] for figure, entry in result.items() if figure != "became"}
    others = styles - 1
    counts = {"UA": 5, "UA_both": 5, "SC": 19 * 5, "OC": others * 5}
    unrelated = 19 * others * 5
    assert images == counts | {"UP": unrelated, "UP_both": unrelated, "FR": (19 + others) * 5 + unrelated}


def noisy(protocol, seed=0):
    """Random answers, and the same as arrays of hits [seed,theme,object]: a second way to every figure."""
    rng = np.random.default_rng(seed)
    shape = len(protocol.seeds), len(protocol.themes), len(protocol.objects)
    themes, objects = rng.integers(0, shape[1], shape), rng.integers(0, shape[2], shape)
    themes[rng.random(shape) < 0.6] = -1
    objects[rng.random(shape) < 0.6] = -1
    themes = np.where(themes < 0, np.arange(shape[1])[:, None], themes)
    objects = np.where(objects < 0, np.arange(shape[2]), objects)
    seen = zip(themes.ravel(), objects.ravel())
    said = {cell: (protocol.themes[t], protocol.objects[o]) for cell, (t, o) in zip(grid(protocol), seen)}
    return said.get, themes == np.arange(shape[1])[:, None], objects == np.arange(shape[2])


@pytest.mark.parametrize("count_photo", [False, True])
def test_figures_against_arrays(count_photo):
    protocol = synthetic.protocol(count_photo=count_photo)
    see, theme_hits, object_hits = noisy(protocol)
    keep = [count_photo or theme != PHOTO for theme in protocol.themes]
    theme_hits, object_hits = theme_hits[:, keep], object_hits[:, keep]
    s, o = protocol.counted.index("Sketch"), protocol.objects.index("Cats")

    style = score(protocol, "Sketch", see)["mean"]
    assert style["UA"] == pytest.approx(1 - theme_hits[:, s].mean())
    assert style["IRA"] == pytest.approx(np.delete(theme_hits, s, 1).mean())
    assert style["CRA"] == pytest.approx(object_hits.mean())
    assert style["CRA_kept"] == pytest.approx(np.delete(object_hits, s, 1).mean())

    obj = score(protocol, "Cats", see)["mean"]
    assert obj["UA"] == pytest.approx(1 - object_hits[:, :, o].mean())
    assert obj["IRA"] == pytest.approx(np.delete(object_hits, o, 2).mean())
    assert obj["CRA"] == pytest.approx(theme_hits.mean())
    assert obj["CRA_kept"] == pytest.approx(np.delete(theme_hits, o, 2).mean())

    pair = score(protocol, "Sketch+Cats", see)["mean"]
    rest = [np.delete(np.delete(hits, s, 1), o, 2) for hits in (theme_hits, object_hits)]
    assert pair["UA"] == pytest.approx(1 - (theme_hits & object_hits)[:, s, o].mean())
    assert pair["UA_both"] == pytest.approx((~theme_hits & ~object_hits)[:, s, o].mean())
    assert pair["SC"] == pytest.approx(np.delete(theme_hits[:, s], o, 1).mean())
    assert pair["OC"] == pytest.approx(np.delete(object_hits[:, :, o], s, 1).mean())
    assert pair["UP"] == pytest.approx(np.mean(rest))
    assert pair["UP_both"] == pytest.approx((rest[0] & rest[1]).mean()) and pair["UP_both"] < pair["UP"]
    assert pair["FR"] == pytest.approx((pair["SC"] + pair["OC"] + np.mean(rest)) / 3)
    assert not {"UP_both", "FR"} & {*style, *obj}


def test_targets_forgotten_at_once_do_not_count_as_retained():
    protocol = synthetic.protocol()

    def see(cell):  # Sketch and Cats are forgotten, half of Monet too
        theme = (
            "Winter" if cell.theme == "Sketch" or (cell.theme == "Monet" and cell.seed == 1) else cell.theme
        )
        return theme, "Sea" if cell.object == "Cats" else cell.object

    result = score(protocol, "Sketch,Monet,Cats", see)
    assert [result["targets"][name]["UA"]["value"] for name in ("Sketch", "Monet", "Cats")] == [1, 0.5, 1]
    assert result["mean"]["UA"] == pytest.approx(2.5 / 3)
    assert result["mean"]["IRA"] == result["mean"]["CRA"] == result["mean"]["CRA_kept"] == 1
    assert result["targets"]["Sketch"]["IRA"]["classes"] == 1  # Winter
    assert result["targets"]["Sketch"]["CRA"]["classes"] == 2  # Sea, Trees
    assert result["targets"]["Sketch"]["CRA_kept"]["images"] == 1 * 2 * 2  # in Winter


def test_classes_count_the_same_whatever_is_left_of_them():
    """Beside a forgotten pair, Cats have images in one style only, all wrong; Sea and Trees in two."""
    see = lambda cell: (cell.theme, "Sea" if cell.object == "Cats" else cell.object)  # noqa: E731
    winter = score(synthetic.protocol(), "Winter,Sketch+Cats", see)["targets"]["Winter"]
    kept = {"value": pytest.approx(2 / 3), "images": 10, "classes": 3}
    assert winter["CRA_kept"] == kept  # a mean over images would be 8 of 10


def test_what_the_target_became():
    protocol = synthetic.protocol()
    rows = synthetic.predictions(
        protocol, lambda cell: ("Winter", "Sea") if cell.theme == "Sketch" else cell[:2]
    )
    rows = [row._replace(theme_seen_prob=0.3) if row.object == "Cats" else row for row in rows]
    result = figures.score(from_rows(rows, protocol), protocol, parse_targets("Sketch"))
    became = result["targets"]["Sketch"]["became"]
    assert became["theme"] == {"seen": {"Winter": 1.0}, "unsure": pytest.approx(1 / 3)}
    assert became["object"] == {"seen": {"Sea": 1.0}, "unsure": 0}
    assert result["confusion"]["theme"]["Sketch"] == {"Winter": 6}
    assert result["confusion"]["object"]["Cats"] == {"Cats": 6, "Sea": 2}
    assert result["accuracy"]["object"]["Cats"] == {
        "value": pytest.approx(4 / 6),
        "images": 6,
    }  # without photos
    assert result["accuracy"]["theme"][PHOTO] == {"value": 1, "images": 6}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rows: rows[1:], "Monet_Cats_seed1.png has no prediction"),
        (lambda rows: [*rows, rows[0]], "Monet_Cats_seed1.png is judged twice"),
        (lambda rows: [*rows, rows[0]._replace(seed=3)], "Monet_Cats_seed3.png does not belong"),
    ],
)
def test_rows_must_be_the_grid(change, fault):
    protocol = synthetic.protocol()
    with pytest.raises(UserError, match=fault):
        from_rows(change(synthetic.predictions(protocol)), protocol)


def test_a_target_the_protocol_lacks():
    with pytest.raises(UserError, match="Rust"):
        score(synthetic.protocol(), "Rust")


def test_command(tmp_path, capsys):
    protocol = synthetic.protocol()
    base = tmp_path / "base" / "answers"
    synthetic.answer_set(base, protocol, see=synthetic.right)
    forgot = lambda cell: ("Winter" if cell.theme == "Sketch" else cell.theme, cell.object)  # noqa: E731
    run = synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, forgot)
    accuracy.main([f"{run}/answers", "--target", "Sketch", "--base", str(base)])
    written = json.loads((run / "answers" / "accuracy.json").read_text())
    assert (written["mean"]["UA"], written["base"]["mean"]["UA"]) == (1, 0)
    assert written["protocol"]["hash"] == protocol.hash and written["judged"]["style_classifier"] == "a" * 16
    assert "UA" in capsys.readouterr().out
    accuracy.main([f"{run}/answers"])  # the record knows the target
    assert "base" not in json.loads((run / "answers" / "accuracy.json").read_text())


@pytest.mark.parametrize(
    "arguments", ["--target Monet", "--base {run}/answers", "--base {other}", "--base {judged}"]
)
def test_command_refuses(arguments, tmp_path, capsys):
    protocol = synthetic.protocol()
    run = synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, synthetic.right)
    folders = {"run": run, "other": tmp_path / "other", "judged": tmp_path / "judged"}
    synthetic.answer_set(folders["other"], synthetic.protocol(steps=1), see=synthetic.right)
    synthetic.answer_set(folders["judged"], protocol, see=synthetic.right, judge="b" * 16)
    with pytest.raises(SystemExit):
        accuracy.main([f"{run}/answers", *arguments.format(**folders).split()])
    assert arguments.split()[0] in capsys.readouterr().err
    assert not (run / "answers" / "accuracy.json").exists()


def test_command_without_a_target_tells_what_is_recognised(tmp_path, capsys):
    synthetic.answer_set(tmp_path / "base", synthetic.protocol(), see=synthetic.right)
    accuracy.main([str(tmp_path / "base")])
    out = capsys.readouterr().out
    assert "theme accuracy 100.0 %, lowest 100.0 %" in out
    assert "object accuracy 100.0 %" in out
    assert not (tmp_path / "base" / "accuracy.json").exists()
