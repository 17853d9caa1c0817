"""The prompt ladder: what its levels ask."""

import pytest

from evaluation import canvas, probes
from evaluation.probes.ladder import misspelt


def test_a_misspelt_name_is_one_letter_off():
    spelt = {misspelt("Sketch", ("Sketch", obj, seed)) for obj in canvas.OBJECTS for seed in canvas.SEEDS}
    assert "Sketch" not in spelt and all(name[0] == "S" for name in spelt)
    dropped, doubled, swapped = ({name for name in spelt if len(name) == n} for n in (5, 7, 6))
    assert dropped == {"Setch", "Sktch", "Skech", "Sketh"}
    assert doubled == {"Skketch", "Skeetch", "Skettch", "Sketcch"}
    assert swapped == {"Sektch", "Sktech", "Skecth", "Skethc"}
    assert misspelt("Sketch", ("a",)) == misspelt("Sketch", ("a",))


def test_the_misspelling_of_words_stays_within_one():
    for name in map(canvas.spoken, [*canvas.STYLES, *canvas.OBJECTS]):
        for seed in range(20):
            wrong = misspelt(name, (seed,))
            assert wrong != name and wrong.count(" ") == name.count(" ")


@pytest.mark.parametrize("name", ["canvas", "mini"])
def test_shipped_levels_know_every_target(name):
    plan = probes.load("ladder", name)
    for target in plan.world.everything:
        (parsed,) = canvas.parse_targets(target)
        cell = ("Sketch", target) if target in canvas.OBJECTS else (target, "Cats")
        prompts = {level: plan.prompt(level, parsed, *cell, 188) for level in plan.levels}
        assert all(prompts.values()) and len({*prompts.values()}) == len(prompts)
        spoken = canvas.spoken(target)
        assert spoken not in prompts["neighbour"] and spoken not in prompts["misspelling"]
        assert spoken in prompts["name"] and spoken in prompts["paraphrase"]
        assert spoken.lower() not in prompts.get("description", "").lower().replace(cell[1].lower(), "")
    assert plan.prompt("neighbour", *canvas.parse_targets("Sketch+Cats"), "Sketch", "Cats", 188) is None


def test_prompts_by_example():
    plan, (style,), (cats,) = (
        probes.load("ladder", "canvas"),
        *map(canvas.parse_targets, ("Van_Gogh", "Cats")),
    )
    assert plan.prompt("name", style, "Van_Gogh", "Cats", 188) == "Van Gogh"
    assert plan.prompt("language", cats, "Van_Gogh", "Cats", 188) == "A chats image in Van Gogh style."
    assert plan.prompt("description", style, "Van_Gogh", "Cats", 188) == (
        "A Cats image, thick swirling strokes, as in The Starry Night."
    )
    assert plan.prompt("neighbour", cats, canvas.PHOTO, "Cats", 188) == "A Dogs image in Photo style."
