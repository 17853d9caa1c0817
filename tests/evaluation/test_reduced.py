from statistics import fmean

import numpy as np
import pytest

from evaluation import reduced
from evaluation.answers.answer_set import Cell, grid
from evaluation.answers.predictions import read_predictions
from evaluation.canvas import PHOTO, parse_targets
from evaluation.reporting.collect import collect
from tests import synthetic

PROTOCOL = synthetic.protocol(
    themes=("Monet", PHOTO, "Sketch", "Winter", "Rust"), objects=("Cats", "Sea", "Trees", "Dogs")
)
RNG = np.random.default_rng(1)
WRONG = {cell: RNG.random(2) < 0.4 for cell in grid(PROTOCOL)}


def anyhow(cell):
    theme, obj = WRONG[cell]
    return "Winter" if theme else cell.theme, "Sea" if obj else cell.object


def second_seed(cell):
    return (cell.theme, cell.object) if cell.seed == 1 else (PHOTO, "Statues")


def runs(root, see, targets=("Sketch", "Sea")):
    for target in targets:
        synthetic.run_folder(root, "esd", target, PROTOCOL, see)
    return [result for result in collect([root])[0] if result.method != "base"]


def by_hand(rows, target):
    """UA, IRA and CRA of rows: means over classes."""
    own, other = ("theme", "object") if target.kind == "style" else ("object", "theme")
    values = {}
    for domain in (own, other):
        classes = {}
        for row in rows:
            right = getattr(row, domain) == getattr(row, f"{domain}_seen")
            classes.setdefault(getattr(row, domain), []).append(right)
        values[domain] = {name: fmean(rights) for name, rights in classes.items()}
    gone = values[own].pop(target.style or target.object)
    return [1 - gone, fmean(values[own].values()), fmean(values[other].values())]


@pytest.mark.parametrize("target", ["Sketch", "Sea"])
def test_a_draw_has_the_figures_of_its_images(target, tmp_path):
    """The rows of the classes drawn, as often as drawn, averaged by `accuracy`."""
    (one,) = runs(tmp_path, anyhow, [target])
    size = reduced.Grid("", 3, 3, 1)
    ours = reduced.grid_figures(one, reduced.hits_of(one), size)
    own, other = (
        (reduced.THEMES, reduced.OBJECTS) if one.kind == "style" else (reduced.OBJECTS, reduced.THEMES)
    )
    names = {reduced.THEMES: PROTOCOL.counted, reduced.OBJECTS: PROTOCOL.objects}
    weights = {
        own: reduced.drawn(own, 4, 3, names[own].index(target)),
        other: reduced.drawn(other, 4, 3),
        reduced.SEEDS: reduced.drawn(reduced.SEEDS, 2, 1),
    }
    rows = {Cell(*row[:3]): row for row in read_predictions(one.path / "answers")[0]}
    (asked,) = parse_targets(target)
    for draw in range(20):
        counts = {axis: (3 * each[draw]).round().astype(int) for axis, each in weights.items()}
        chosen = [  # one more of a class is another class of equal images
            row._replace(
                theme=f"{row.theme}{i}" if i else row.theme,
                theme_seen=f"{row.theme_seen}{i}" if i else row.theme_seen,
                object=f"{row.object}{k}" if k else row.object,
                object_seen=f"{row.object_seen}{k}" if k else row.object_seen,
            )
            for cell, row in rows.items()
            if cell.theme != PHOTO and counts[reduced.SEEDS][PROTOCOL.seeds.index(cell.seed)]
            for i in range(counts[reduced.THEMES][PROTOCOL.counted.index(cell.theme)])
            for k in range(counts[reduced.OBJECTS][PROTOCOL.objects.index(cell.object)])
        ]
        assert len(chosen) == 9
        if asked.kind == "style":
            assert counts[own][PROTOCOL.counted.index("Sketch")] == 1
        assert ours[:, draw] == pytest.approx(by_hand(chosen, asked))


def test_the_whole_grid_has_the_figures_of_the_tables(tmp_path):
    for one in runs(tmp_path, anyhow):
        hits = reduced.hits_of(one)
        even = [np.full((1, count), 1 / count) for count in hits.own.shape]
        found = reduced.figures(hits, *even)[:, 0]
        assert found == pytest.approx([one.figures[name] for name in reduced.FIGURES])


def test_weights_are_counts_and_hold_the_target():
    free, held = reduced.drawn(0, 5, 3), reduced.drawn(0, 5, 3, 2)
    assert np.allclose(free.sum(1), 1) and np.allclose(held.sum(1), 1)
    assert np.allclose(3 * free, (3 * free).round()) and np.allclose(held[:, 2], 1 / 3)
    assert free.mean(0) == pytest.approx([0.2] * 5, abs=0.02)
    assert held.mean(0)[[0, 1, 3, 4]] == pytest.approx([1 / 6] * 4, abs=0.02)
    assert free.max() > 0.9  # the same one three times


def test_only_what_varies_is_unsure(tmp_path):
    """All of one seed is right, nothing of the other: with one seed a figure is 0 or 100."""
    judged = runs(tmp_path, second_seed)
    group = [(one, reduced.hits_of(one)) for one in judged if one.kind == "style"]
    assert reduced.widths(group, reduced.Grid("", 4, 4, 1)) == pytest.approx([50, 50, 50])
    assert reduced.widths(group, reduced.Grid("", 2, 2, 1)) == pytest.approx([50, 50, 50])
    many = reduced.widths(group, reduced.Grid("", 4, 4, 100))
    assert many == pytest.approx([100 * 1.96 * 0.5 / 10] * 3, rel=0.1)  # of a mean of 100 coins


def test_fewer_targets_are_less_sure(tmp_path):
    def forgets_monet(cell):
        return "Winter" if cell.theme == "Monet" else cell.theme, cell.object

    judged = runs(tmp_path, forgets_monet, ["Monet", "Sketch"])
    group = [(one, reduced.hits_of(one)) for one in judged]
    fixed, one, four = (reduced.widths(group, reduced.Grid("", 4, 4, 2, n))[0] for n in (None, 1, 4))
    assert fixed == pytest.approx(0) and one == pytest.approx(50) and 0 < four <= 50
    assert reduced.widths(group, reduced.Grid("", 4, 4, 2, 100))[0] < four


def test_the_command_prints_a_row_for_every_grid(tmp_path, capsys):
    runs(tmp_path, anyhow)
    synthetic.answer_set(tmp_path / "base" / "answers", PROTOCOL, see=synthetic.right)
    reduced.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][:4] == ["grid", "size", "targets", "style UA"] and len(cells[0]) == 9
    assert cells[2][:3] == ["small", "4 x 4 x 2", "as they are"]
    assert ["canvas-lite", "10 x 5 x 2", "4"] in [row[:3] for row in cells]
    sizes = {row[0]: fmean(map(float, row[3:])) for row in cells[2:10]}
    assert sizes["half of each"] > sizes["small"] > sizes["canvas"] > 0


def test_needs_single_targets(tmp_path, capsys):
    synthetic.run_folder(tmp_path, "esd", "Sketch+Cats", PROTOCOL, synthetic.right)
    with pytest.raises(SystemExit):
        reduced.main([str(tmp_path)])
    assert f"{tmp_path}: no run has a style or an object as its target" in capsys.readouterr().err
