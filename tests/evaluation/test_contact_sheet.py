import pytest
from PIL import Image, ImageColor

from evaluation import canvas, contact_sheet
from evaluation import protocol as protocols
from evaluation.answers.answer_set import grid
from evaluation.canvas import parse_targets
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


def test_frame_encloses_the_target_and_nothing_else(runs):
    protocol, mark = synthetic.protocol(), ImageColor.getrgb(contact_sheet.MARK)
    for target, run in (("Sketch", "esd/Sketch"), ("Sketch+Cats", "uce/Sketch+Cats")):
        page = sheet(runs, answers=[f"{run}/answers"])
        layout = contact_sheet.arrange(protocol, parse_targets(target), 3)
        (target,) = parse_targets(target)
        for theme, left in layout.lefts.items():
            for obj, top in layout.tops.items():
                sides = [page.getpixel((x, top + layout.side)) for x in (left - 4, left + layout.side + 3)]
                assert (sides == [mark, mark]) == target.covers(theme, obj), (theme, obj)


def test_panels_are_stacked(runs):
    one, two = sheet(runs), sheet(runs, answers=["esd/Sketch/answers", "uce/Sketch+Cats/answers"])
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
