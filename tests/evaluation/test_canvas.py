"""Names, prompts and file names."""

import pytest

from evaluation import canvas
from evaluation.canvas import Target
from evaluation.core.errors import UserError


def test_counts_and_order():
    assert (len(canvas.STYLES), len(canvas.OBJECTS), len(canvas.UNUSED_STYLES)) == (50, 20, 10)
    assert len({*canvas.STYLES, *canvas.UNUSED_STYLES}) == 60
    assert list(canvas.STYLES) == sorted(canvas.STYLES) and list(canvas.OBJECTS) == sorted(canvas.OBJECTS)
    assert len(canvas.THEMES) == 51 and canvas.THEMES.index(canvas.PHOTO) == 38
    assert not set(canvas.TRAIN) & set(canvas.TEST) and {*canvas.TRAIN, *canvas.TEST} == set(range(1, 21))


def test_prompts():
    assert canvas.prompt("Van_Gogh", "Cats") == "A Cats image in Van Gogh style."
    assert canvas.prompt(canvas.PHOTO, "Sea") == "A Sea image in Photo style."
    assert canvas.prompt(canvas.PHOTO, "Sea", photo="Seed Images") == "A Sea image in Seed Images style."


def test_file_names_round_trip():
    for theme in (*canvas.THEMES, *canvas.UNUSED_STYLES):
        for obj in canvas.OBJECTS:
            assert canvas.parse_answer_name(canvas.answer_name(theme, obj, 188)) == (theme, obj, 188)
    assert canvas.answer_name("Van_Gogh", "Cats", 188, ".jpg") == "Van_Gogh_Cats_seed188.jpg"
    for bad in ("Cats_seed188.png", "Van_Gogh_Cats.png", "Van_Gogh_Cats_seedx.png"):
        with pytest.raises(UserError, match="not an answer-set image"):
            canvas.parse_answer_name(bad)


def test_targets():
    sketch, cats, pair = canvas.parse_targets("Sketch, Cats,Sketch+Cats")
    assert (sketch, cats, pair) == (Target("Sketch", None), Target(None, "Cats"), Target("Sketch", "Cats"))
    assert [target.kind for target in (sketch, cats, pair)] == ["style", "object", "pair"]
    assert str(pair) == "Sketch+Cats" and canvas.parse_targets("Cats+Sketch") == [pair]
    cells = [("Sketch", "Cats"), ("Sketch", "Sea"), ("Rust", "Cats"), ("Rust", "Sea")]
    covered = [[target.covers(*cell) for cell in cells] for target in (sketch, cats, pair)]
    assert covered == [[True, True, False, False], [True, False, True, False], [True, False, False, False]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("Skecth", "did you mean Sketch"),
        ("van gogh", "did you mean Van_Gogh"),
        ("Sketch+Catz", "did you mean Cats"),
        ("Sketch+Rust", "one style and one object"),
        ("Qqqqq", "choose from Abstractionism"),
        ("Seed_Images", "no style or object"),
        ("", "no style or object"),
    ],
)
def test_wrong_targets(text, message):
    with pytest.raises(UserError, match=message):
        canvas.parse_targets(text)


def test_command_line(capsys):
    canvas.main(["styles"])
    assert capsys.readouterr().out.split() == list(canvas.STYLES)
