import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import contact_sheet, figures
from evaluation.drawing import curves, gallery, plots
from evaluation.drawing.look import COLOURS, MARKERS
from evaluation.drawing.pairs import pairs_page
from evaluation.reporting.collect import collect
from evaluation.reporting.matrices import became
from evaluation.reporting.rows import grouped
from tests import synthetic

PROTOCOL = synthetic.protocol()
ROOT = Path(__file__).parents[2]


def forget(*names):
    def see(cell):
        theme = "Winter" if cell.theme in names and cell.seed == 1 else cell.theme
        return theme, "Sea" if cell.object in names else cell.object

    return see


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    synthetic.answer_set(root / "base" / "answers", PROTOCOL, see=synthetic.right)
    for method, fid, seconds in (("esd", 10.0, 30.0), ("salun", 20.0, 10.0), ("toy", 40.0, 20.0)):
        for target in ("Sketch", "Monet", "Cats", "Sketch+Cats"):
            run = synthetic.run_folder(
                root, method, target, PROTOCOL, forget(target), seconds={"setup": 0.0, "unlearn": seconds}
            )
            synthetic.distances(run, {target: fid})
    return root


def groups(root):
    return {label: group for label, group in grouped(collect([root])[0]).items() if label != "base"}


def draw(root, out):
    """In a process of its own, whose sets of texts have another order; -> file name -> hash."""
    command = [sys.executable, "-m", "evaluation.figures", root, "--out", out]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": out.name[-1]}, check=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def test_every_figure_in_both_formats_and_twice_the_same_bytes(runs, tmp_path):
    files = draw(runs, tmp_path / "out1")
    names = ["radar", "tradeoff", "interference"]
    names += [f"{what}_{method}" for what in ("interference", "became") for method in ("esd", "salun", "toy")]
    wanted = {f"{name}.{suffix}" for name in names for suffix in ("svg", "png")}
    assert set(files) == wanted | {"interference.csv"}
    for name in names:
        with Image.open(tmp_path / "out1" / f"{name}.png") as image:
            assert image.width > 300 and len(image.convert("RGB").getcolors(1 << 24)) > 10
        assert "<dc:date>" not in (tmp_path / "out1" / f"{name}.svg").read_text()
    assert draw(runs, tmp_path / "out2") == files


def test_radar_runs_from_dearest_to_cheapest(runs):
    values = {label: plots.metrics(group) for label, group in groups(runs).items()}
    assert list(values["esd"]) == [*plots.QUALITIES, *plots.COSTS]
    assert values["esd"]["UA"] == pytest.approx(75)  # styles 50, objects 100; the pair is of another kind
    closeness = {label: plots.cheapness("FID", metric, values.values()) for label, metric in values.items()}
    assert closeness == pytest.approx({"esd": 100, "salun": 100 * 2 / 3, "toy": 0})
    assert plots.cheapness("storage_MB", values["esd"], values.values()) == 100  # all alike


def test_a_metric_that_one_method_lacks_is_left_out(runs):
    for path in (runs / "toy").glob("*/answers/fid.json"):
        path.unlink()
    axes = plots.radar(groups(runs)).axes[0]
    assert [text.get_text().split("\n")[0] for text in axes.get_xticklabels()] == [
        "UA", "IRA", "CRA", "time", "memory", "storage"
    ]  # fmt: skip


def test_trade_off_is_of_targets_and_seeds(runs):
    forgotten, kept = plots.plane(groups(runs)["esd"], "style")
    assert forgotten.tolist() == [[100, 0], [100, 0]]  # Monet, Sketch; forgotten with seed 1 alone
    assert kept.shape == (2, 2) and (kept == 100).all()
    assert plots.plane(groups(runs)["esd"], "several") is None
    figure = plots.tradeoff(groups(runs), [])
    assert [axes.get_title() for axes in figure.axes] == ["Styles", "Objects"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ESD", "SalUn", "TOY"]
    places = plots.stretched(np.array([0, 50, 95, 98, 99, 100]))
    assert (np.diff(places) > 0).all() and places[4] - places[3] > 0.05 * (places[-1] - places[0])


def test_what_forgotten_images_became(runs):
    matrix = became("", groups(runs)["esd"], "style")
    assert matrix.rows == ["Monet", "Sketch"] and matrix.columns == [*PROTOCOL.themes, "other"]
    assert matrix.values.tolist() == [[50, 0, 0, 50, 0], [0, 0, 50, 50, 0]]
    assert matrix.marked == [{"Monet"}, {"Sketch"}]
    matrix = became("", groups(runs)["esd"], "object")  # the photos do not count
    assert matrix.values.tolist() == [[0, 100, 0, 0]]
    assert became("", [], "style") is None


def test_labels_that_the_protocol_lacks_are_others(runs):
    """A judge knows more styles and objects than a small protocol asks for; none may be lost."""

    def see(cell):
        return ("Rust", "Dogs") if cell.theme == "Sketch" and cell.seed == 1 else (cell.theme, cell.object)

    synthetic.run_folder(runs, "odd", "Sketch", PROTOCOL, see)
    matrix = became("", groups(runs)["odd"], "style")
    assert matrix.values.tolist() == [[0, 0, 50, 0, 50]] and matrix.values.sum() == 100


def test_a_look_for_every_method():
    methods = len(list(ROOT.glob("machine_unlearning/*/train.py")))
    assert len(set(COLOURS)) == len(COLOURS) >= methods and len(set(MARKERS)) == len(MARKERS) >= methods


def test_refuses_to_mix(runs, tmp_path, capsys):
    synthetic.run_folder(runs, "uce", "Sketch", synthetic.protocol(steps=7), synthetic.right)
    with pytest.raises(SystemExit):
        figures.main([str(runs), "--out", str(tmp_path / "out")])
    assert "protocol" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_drawing_needs_no_torch():
    code = "import sys, evaluation.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_curves_are_means_over_orders(runs, tmp_path):
    """Sketch comes back after Monet in one order; nothing does in the other. UCE has one order, and no T1."""
    assert curves.sequential(collect([runs])[0]) is None
    for target, gone in {"Sketch~Monet": ["Monet"], "Monet~Sketch": ["Monet", "Sketch"]}.items():
        synthetic.run_folder(runs, "esd", target, PROTOCOL, forget(*gone))
    synthetic.run_folder(runs, "uce", "Sketch~Monet~Cats", PROTOCOL, forget("Cats"))
    figure = curves.sequential(collect([runs])[0])
    esd, uce = figure.axes
    assert (esd.get_title(), uce.get_title()) == ("ESD", "UCE")
    paper, lines = esd.lines[:2], esd.lines[2:]
    assert list(paper[0].get_ydata()) == [77.46, 52.94, 35.99, 24.86, 18.69, 12.95]
    assert paper[1].get_ydata()[1] == pytest.approx((99 + 100) / 2)
    first, second, kept = (line.get_ydata().tolist() for line in lines)
    assert first == [50, 25] and np.isnan(second[0]) and second[1] == 50  # forgotten with one seed of two
    assert kept == [100, 100]
    first, second, third, kept = (line.get_ydata() for line in uce.lines[2:])
    assert np.isnan(first[:2]).all() and first[2] == 0 and third[2] == 100 and np.isnan(kept[:2]).all()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["UA of T1", "UA of T2", "SR", "UA of T3", "paper: SR", "paper: mean UA"]


def test_chains_are_in_no_other_figure(runs, tmp_path):
    """Beside `sequential` nothing changes, in no byte."""
    before = draw(runs, tmp_path / "out1")
    synthetic.run_folder(runs, "esd", "Sketch~Monet", PROTOCOL, forget("Monet"))
    after = draw(runs, tmp_path / "out2")
    assert after.keys() - before.keys() == {"sequential.svg", "sequential.png"}
    assert {name: after[name] for name in before} == before


def test_a_pair_s_sheet_is_that_of_its_images_or_sprites(tmp_path):
    """Of the pair that most methods forgot; without images or sprites there is none."""
    root = tmp_path / "runs"
    synthetic.answer_set(root / "base/answers", PROTOCOL, see=synthetic.right, images=True)
    for method, target in (("esd", "Monet+Sea"), ("esd", "Sketch+Cats"), ("uce", "Sketch+Cats")):
        synthetic.run_folder(root, method, target, PROTOCOL, synthetic.right, images=True)
    page = pairs_page(collect([root])[0])
    one = pairs_page(collect([root])[0][:-1])  # esd alone: Monet+Sea comes first
    assert (page.width, page.height) == (1400, 2 * one.height)
    answers = [str(root / method / "Sketch+Cats/answers") for method in ("esd", "uce")]
    contact_sheet.main(["--base", f"{root}/base/answers", "--answers", *answers, "--out", f"{root}/s.png"])
    assert (np.asarray(Image.open(root / "s.png")) == np.asarray(page)).all()
    gallery.gallery(collect([root])[0])  # keeps sprites
    for path in root.rglob("*_seed*.png"):
        path.unlink()
    figures.main([str(root), "--out", str(tmp_path / "out")])
    drawn = np.asarray(Image.open(tmp_path / "out/pairs.png")).astype(int)
    assert (
        np.abs(drawn - np.asarray(page)).mean() < 2 and (drawn != np.asarray(page)).any()
    )  # WebP of 64 pixels
    for path in root.rglob("sprite.webp"):
        path.unlink()
    assert pairs_page(collect([root])[0]) is None
