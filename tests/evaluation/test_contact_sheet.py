import pytest
from PIL import Image, ImageColor

from evaluation import canvas, contact_sheet
from evaluation import protocol as protocols
from evaluation.answers.answer_set import grid
from evaluation.canvas import parse_targets
from evaluation.drawing import sheets
from tests import synthetic


@pytest.fixture
def runs(tmp_path):
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path / "base" / "answers", protocol, images=True)
    synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, images=True)
    synthetic.run_folder(tmp_path, "uce", "Sketch+Cats", protocol, images=True)
    return tmp_path


def sheet(runs, *more, answers=("esd/Sketch/answers",)):
    out = runs / "sheet.png"
    paths = [str(runs / folder) for folder in answers]
    contact_sheet.main(["--base", f"{runs}/base/answers", "--answers", *paths, "--out", str(out), *more])
    return Image.open(out)


@pytest.mark.parametrize("seed", [1, 2])
def test_base_above_unlearned(runs, seed):
    page = sheet(runs, "--seed", str(seed))
    layout = contact_sheet.arrange(synthetic.protocol(), parse_targets("Sketch"), 3)
    assert page.width == contact_sheet.WIDTH and page.getpixel((1, 1)) == (255, 255, 255)
    for cell in grid(synthetic.protocol()):
        if cell.seed != seed:
            continue
        x, y = (start + layout.side // 2 for start in (layout.lefts[cell.theme], layout.tops[cell.object]))
        for folder, centre in (("base", (x, y)), ("esd/Sketch", (x, y + layout.below))):
            image = Image.open(runs / folder / "answers" / canvas.answer_name(*cell))
            assert page.getpixel(centre) == image.getpixel((0, 0))


def test_a_method_is_called_what_its_paper_calls_it(runs, monkeypatch):
    titles = []
    monkeypatch.setattr(contact_sheet, "write_title", lambda draw, method, targets: titles.append(method))
    for method in ("salun", "semantic_surgery", "mine"):
        synthetic.run_folder(runs, method, "Sketch", synthetic.protocol(), images=True)
    sheet(runs, answers=[f"{method}/Sketch/answers" for method in ("salun", "semantic_surgery", "mine")])
    assert titles == ["SalUn", "Semantic Surgery", "MINE"]


def test_frame_encloses_the_target_and_nothing_else(runs):
    protocol, mark = synthetic.protocol(), ImageColor.getrgb(contact_sheet.MARK)
    synthetic.run_folder(runs, "esd", "Sketch+Cats,Monet+Sea", protocol, images=True)
    for target, run in (("Sketch", "esd/Sketch"), ("Sketch+Cats,Monet+Sea", "esd/Sketch+Cats,Monet+Sea")):
        page = sheet(runs, answers=[f"{run}/answers"])
        targets = parse_targets(target)
        layout = contact_sheet.arrange(protocol, targets, 3)
        for theme, left in layout.lefts.items():
            for obj, top in layout.tops.items():
                sides = [page.getpixel((x, top + layout.side)) for x in (left - 4, left + layout.side + 3)]
                assert (sides == [mark, mark]) == any(t.covers(theme, obj) for t in targets), (theme, obj)


def test_a_pair_is_shown_by_its_row_and_its_column(runs):
    """Sketch with every object, then Cats in every theme, photographs first; base above, unlearned below."""
    page, mark = (
        sheet(runs, "--seed", "2", answers=["uce/Sketch+Cats/answers"]),
        ImageColor.getrgb(sheets.MARK),
    )
    side, left, top = 150, sheets.MARGIN + sheets.LABELS, sheets.HEADER
    lower = top + sheets.NAMES + 2 * side + sheets.PAIR_GAP + sheets.OBJECT_GAP
    row = [("Sketch", obj) for obj in ("Cats", "Sea", "Trees")]
    column = [(theme, "Cats") for theme in (canvas.PHOTO, "Monet", "Sketch", "Winter")]
    for y, cells in ((top, row), (lower, column)):
        for place, cell in enumerate(cells):
            x = left + place * (side + sheets.GAP)
            for folder, below in (("base", 0), ("uce/Sketch+Cats", side + sheets.PAIR_GAP)):
                image = Image.open(runs / folder / "answers" / canvas.answer_name(*cell, 2))
                assert page.getpixel((x + 75, y + below + 75)) == image.getpixel((0, 0)), (cell, folder)
            sides = [page.getpixel((edge, y + side)) for edge in (x - 4, x + side + 3)]
            assert (sides == [mark, mark]) == (cell == ("Sketch", "Cats"))
    assert page.height == lower + (lower - top)


def test_all_of_a_large_row_and_column_are_shown():
    pair, protocol = parse_targets("Van_Gogh+Waterfalls")[0], protocols.load("canvas")
    lines = sheets.pair_lines(pair, protocol, 188)
    assert [len(line) for line in lines] == [11, 9, 11, 11, 11, 11, 7]
    cells = [cell for line in lines for cell in line]
    assert {cell.object for cell in cells[:20]} == {*canvas.OBJECTS} and len({*cells}) == 20 + 51 - 1
    assert {cell.theme for cell in cells[20:]} == {*canvas.THEMES} and cells[20].theme == canvas.PHOTO


def test_panels_are_stacked(runs):
    one, two = sheet(runs), sheet(runs, answers=["esd/Sketch/answers"] * 2)
    assert two.height == 2 * one.height
    assert sheet(runs, "--objects", "1").height < one.height


@pytest.mark.parametrize("target", ["Winter", "Waterfalls", "Winter+Waterfalls"])
def test_a_large_protocol_shows_the_target_and_fits(target):
    protocol, targets = protocols.load("canvas"), parse_targets(target)
    layout = contact_sheet.arrange(protocol, targets, 3)
    assert len(layout.lefts) == 11 and len(layout.tops) == 3
    assert next(iter(layout.lefts)) == canvas.PHOTO
    assert targets[0].style in (None, *layout.lefts) and targets[0].object in (None, *layout.tops)
    assert max(layout.lefts.values()) + layout.side <= contact_sheet.WIDTH - contact_sheet.MARGIN
    last = [name for name in layout.lefts if name != canvas.PHOTO]
    assert last == sorted(last)


@pytest.mark.parametrize("arguments", [["--seed", "3"], ["--base", "esd/Sketch/answers"]])
def test_refuses(arguments, runs, capsys):
    arguments = [str(runs / each) if "/" in each else each for each in arguments]
    with pytest.raises(SystemExit):
        sheet(runs, *arguments)
    assert arguments[0] in capsys.readouterr().err


def test_refuses_a_base_of_another_protocol(runs, capsys):
    synthetic.answer_set(runs / "other", synthetic.protocol(steps=3), images=True)
    with pytest.raises(SystemExit):
        sheet(runs, "--base", str(runs / "other"))
    assert "--base" in capsys.readouterr().err
