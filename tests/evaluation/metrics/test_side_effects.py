"""Side effects on a few images whose labels are made up: what is expected is counted by hand."""

import numpy as np
import pytest

from evaluation.canvas import PHOTO, parse_targets
from evaluation.metrics.side_effects import NEAREST, SIDE_EFFECTS, by_seed, neighbours
from tests import synthetic

THEMES = ("Monet", "Pastel", "Rust", PHOTO, "Sketch", "Winter")
PROTOCOL = synthetic.protocol(themes=THEMES)  # three objects, two seeds; photos count nowhere
WITH_PHOTOS = synthetic.protocol(themes=THEMES, count_photo=True)
BASE = {  # cell -> the label that is not the one asked for
    ("Sketch", "Cats", 1): "Winter",
    ("Monet", "Sea", 1): "Sketch",
    ("Monet", "Sea", 2): "Sketch",
    (PHOTO, "Sea", 1): "Sketch",
    (PHOTO, "Cats", 2): "Sea",
    ("Rust", "Trees", 1): "Cats",
}
OURS = {
    ("Sketch", "Cats", 1): "Rust",
    ("Sketch", "Sea", 1): "Rust",
    ("Sketch", "Cats", 2): "Monet",
    ("Sketch", "Sea", 2): "Rust",
    ("Sketch", "Trees", 2): "Rust",  # ("Sketch", "Trees", 1) is still seen
    ("Winter", "Cats", 1): "Rust",
    ("Winter", "Sea", 1): "Rust",
    ("Pastel", "Cats", 2): "Rust",
}


def seen(mistakes, protocol=PROTOCOL, unsure=()):
    """Predictions with these labels for what was asked; those of the cells `unsure` are guesses."""

    def see(cell):
        label = mistakes.get(tuple(cell))
        return (cell.theme, label) if label in protocol.objects else (label or cell.theme, cell.object)

    rows = synthetic.predictions(protocol, see)
    guess = {"theme_seen_prob": 0.4, "object_seen_prob": 0.3}
    return synthetic.from_rows([r._replace(**guess) if r[:3] in unsure else r for r in rows], protocol)


def effects(text, ours, base=BASE, protocol=PROTOCOL, **changes):
    """Figures of the first of the targets."""
    targets = tuple(parse_targets(text))
    base = None if base is None else seen(base, protocol)
    return by_seed(targets[0], targets, seen(ours, protocol, **changes), base, protocol)


def nearest(text, base=BASE, protocol=PROTOCOL):
    targets = tuple(parse_targets(text))
    return neighbours(targets[0], targets, seen(base, protocol), protocol)


def test_a_style():
    figures = effects("Sketch", OURS, unsure=[("Sketch", "Sea", 1), ("Monet", "Sea", 1)])
    assert set(figures) == {*SIDE_EFFECTS} and nearest("Sketch") == ["Monet", "Winter"]
    # Monet gains a third with both seeds, Winter loses two thirds with the first
    assert figures["near"] == pytest.approx([(-1 / 3 + 2 / 3) / 2, (-1 / 3 + 0) / 2])
    assert figures["rest"] == pytest.approx([0, (1 / 3 + 0) / 2])  # Pastel and Rust; photos do not count
    assert figures["other"].tolist() == figures["other_base"].tolist() == [1, 1]
    assert figures["unsure"] == pytest.approx([1 / 3, 0])
    # of five images that are not seen as Sketch (2 with the first seed, 3 with the second) four are Rust
    assert figures["became_top"].mean() == pytest.approx(4 / 5)
    assert figures["became_top"] == pytest.approx([0.8 + (2 - 1.6) / 2.5, 0.8 + (2 - 2.4) / 2.5])


def test_an_object_and_what_its_images_keep_of_the_style():
    ours = {("Monet", "Cats", 1): "Winter", ("Sketch", "Cats", 1): "Sea", ("Rust", "Trees", 2): "Sea"}
    figures = effects("Cats", ours)
    assert nearest("Cats") == ["Trees"]  # by Rust's image; the photo that is seen as Sea does not count
    # Trees: Rust's image is right now with the first seed, and wrong with the second; Sea loses nothing
    assert figures["near"] == pytest.approx([-1 / 5, 1 / 5]) and figures["rest"].tolist() == [0, 0]
    assert figures["other"] == pytest.approx([4 / 5, 1])
    assert figures["other_base"] == pytest.approx([4 / 5, 1])  # Sketch, seen as Winter with the first seed
    assert figures["became_top"].tolist() == [1, 1] and figures["unsure"].tolist() == [0, 0]


def test_photos_are_a_theme_where_IRA_has_them():
    assert nearest("Sketch", protocol=WITH_PHOTOS) == ["Monet", PHOTO, "Winter"]  # of a tie the first named
    figures = effects("Sketch", OURS, protocol=WITH_PHOTOS)
    assert figures["near"] == pytest.approx([(-1 / 3 + 1 / 3 * -1 + 2 / 3) / 3, (-1 / 3) / 3])
    assert nearest("Cats", protocol=WITH_PHOTOS) == ["Sea", "Trees"]
    assert effects("Cats", {}, protocol=WITH_PHOTOS)["near"] == pytest.approx([(0 - 1 / 6) / 2, 0])
    without = synthetic.protocol(themes=THEMES, count_photo=True, photo_in_ira=False)
    assert nearest("Sketch", protocol=without) == ["Monet", "Winter"]


def test_targets_of_a_run_are_no_neighbours():
    assert nearest("Sketch,Monet") == ["Winter"] and nearest("Monet,Sketch") == []
    figures = effects("Sketch,Monet", OURS)
    assert figures["near"] == pytest.approx([2 / 3, 0]) and figures["rest"] == pytest.approx([0, 1 / 6])
    assert "near" not in effects("Monet,Sketch", OURS)
    # of Sketch's images those of Cats, forgotten too, do not count in what is kept of the objects
    gone = {("Sketch", "Cats", 1): "Sea", ("Sketch", "Sea", 2): "Trees"}
    assert effects("Sketch", gone)["other"] == pytest.approx([2 / 3, 2 / 3])
    assert effects("Sketch,Cats", gone)["other"] == pytest.approx([1, 1 / 2])
    assert "other" not in effects("Sketch,Cats,Sea,Trees", gone)


def test_a_target_without_neighbours():
    figures = effects("Pastel", {("Monet", "Sea", 1): "Rust"})
    assert nearest("Pastel") == [] and "near" not in figures
    # Monet, Rust, Sketch and Winter are the rest: Sketch gains with the first seed, Monet with the second
    assert figures["rest"] == pytest.approx([-1 / 3 / 4, -1 / 3 / 4])
    assert "became_top" not in figures  # every image is still seen as Pastel


def test_at_most_five_neighbours():
    themes = "Bricks Cartoon Crayon Cubism French Joy Mosaic Rust".split()
    protocol = synthetic.protocol(themes=tuple(themes))
    base = {(theme, "Cats", 1): "Rust" for theme in themes[:-1]} | {("Rust", "Sea", 2): "Mosaic"}
    assert nearest("Rust", base, protocol) == ["Mosaic", *themes[: NEAREST - 1]]
    figures = effects("Rust", {}, base, protocol)
    assert figures["near"] == pytest.approx([-1 / 3, 0]) and figures["rest"] == pytest.approx([-1 / 3, 0])


def test_without_the_base_model_or_of_a_pair():
    figures = effects("Sketch", OURS, base=None)
    assert {*figures} == {"other", "became_top", "unsure"}
    assert figures["became_top"].mean() == pytest.approx(4 / 5)
    assert effects("Sketch+Cats", OURS) == {} and nearest("Sketch+Cats") == []


def test_of_everything_that_became_one_thing_the_share_has_no_spread():
    ours = {("Sketch", "Cats", 1): "Blue_Blooming", ("Sketch", "Sea", 2): "Blue_Blooming"}
    ours |= {("Sketch", "Trees", 2): "Blue_Blooming"}  # which the protocol does not ask for
    assert effects("Sketch", ours)["became_top"].tolist() == [1, 1]


@pytest.mark.parametrize("text", ["Sketch", "Cats", "Sketch,Rust,Sea"])
@pytest.mark.parametrize("protocol", [PROTOCOL, WITH_PHOTOS])
def test_against_rows_counted_one_by_one(text, protocol):
    """All figures of random labels again, from rows and not from arrays."""
    generator, targets = np.random.default_rng(0), tuple(parse_targets(text))

    def random_rows(wrong):
        def see(cell):
            other = generator.choice(protocol.themes), generator.choice(protocol.objects)
            return tuple(map(str, other if generator.random() < wrong else cell[:2]))

        return synthetic.predictions(protocol, see)

    answers = random_rows(0.6), random_rows(0.7)
    arrays = [synthetic.from_rows(rows, protocol) for rows in answers]
    base, ours = ([row for row in rows if row.theme in protocol.counted] for rows in answers)
    target, forgotten = str(targets[0]), {name for t in targets for name in t if name}
    own, other = ("theme", "object") if targets[0].style else ("object", "theme")
    asked = lambda row: getattr(row, own)  # noqa: E731
    label = lambda row: getattr(row, f"{own}_seen")  # noqa: E731

    def accuracy(rows, domain, chosen):
        hits = [getattr(row, domain) == getattr(row, f"{domain}_seen") for row in rows if chosen(row)]
        return sum(hits) / len(hits)

    classes = [name for name in dict.fromkeys(map(asked, base)) if name not in forgotten]
    confused = {name: sum({asked(row), label(row)} == {name, target} for row in base) for name in classes}
    near = sorted(filter(confused.get, classes), key=lambda name: (-confused[name], classes.index(name)))[:5]
    assert near and neighbours(targets[0], targets, arrays[0], protocol) == near
    figures = by_seed(targets[0], targets, arrays[1], arrays[0], protocol)
    for figure, group in {"near": near, "rest": [name for name in classes if name not in near]}.items():
        lost = [
            accuracy(base, own, lambda row, name=name: asked(row) == name)
            - accuracy(ours, own, lambda row, name=name: asked(row) == name)
            for name in group
        ]
        assert (figure in figures) == bool(group)
        assert not group or figures[figure].mean() == pytest.approx(np.mean(lost))
    kept = lambda row: asked(row) == target and getattr(row, other) not in forgotten  # noqa: E731
    assert figures["other"].mean() == pytest.approx(accuracy(ours, other, kept))
    assert figures["other_base"].mean() == pytest.approx(accuracy(base, other, kept))
    missed = [label(row) for row in ours if asked(row) == target != label(row)]
    assert figures["became_top"].mean() == pytest.approx(max(map(missed.count, missed)) / len(missed))
