"""CA's captions: what the anchor images are made from, and the same sentences with the target in them.

Paintings and scenes are products of a few words, so that two hundred captions fit on a page. They name no
style and, but for {object}, no object of the benchmark.
"""

from evaluation.core.errors import UserError
from machine_unlearning.core import concepts
from machine_unlearning.core.concepts import spread

PAINTED = (
    "a painting of {}; an oil painting of {}; an acrylic painting of {}; {} painted on canvas; "
    "{} in thick paint; a large painting showing {}; a small framed painting of {}; an old painting of {}; "
    "an unfinished painting of {}; {} on a painted wooden panel"
).split("; ")
MOTIFS = (
    "a harbour at dawn; a narrow street in the rain; a bowl of lemons; a mountain lake; a railway station; "
    "a kitchen table with bread; two people playing chess; a windmill on a hill; an empty theatre; "
    "a red umbrella; a ship in a storm; a desk with a lamp; a blue door; a village under the moon; "
    "a market in the evening; a wooden bridge; a woman reading a letter; a vase by a window; "
    "a field after the harvest; a child asleep"
).split("; ")
SHOWN = (
    "a photo of {{object}} {}; a picture of {{object}} {}; {{object}} {}; a close view of {{object}} {}; "
    "a wide view of {{object}} {}; a postcard of {{object}} {}; a poster with {{object}} {}; "
    "a film scene with {{object}} {}; a detailed image of {{object}} {}; a blurred image of {{object}} {}"
).split("; ")
MOMENTS = (
    "at sunrise; at noon; at night; in the rain; in the snow; in thick fog; under a grey sky; in soft light"
).split("; ")

CAPTIONS = {
    "paintings": [form.format(motif) for form in PAINTED for motif in MOTIFS],
    "scenes": [form.format(moment) for form in SHOWN for moment in MOMENTS],
}


def in_style(caption: str, style: str) -> list[str]:
    """The six ways in which the original says that a caption is in a style: the name once, or twice."""
    forms = ("{0}, in the style of {1}", "{1} inspired painting, {0}", "in {1}'s style, {0}")
    return [form.format(caption, name) for form in forms for name in (style, f"{style} {style}")]


def caption_rows(args) -> list[tuple[str, list[str]]]:
    """`images` rows (anchor caption, [captions of the target]) for every target.

    Captions with {object} or {theme} speak of a cell that shows the target. With `word`, such a caption is
    the anchor, and the target's put it in the style of that word. Without, it is the target's, and the
    anchor's names the cell's substitute: an object gives way to the next one, a style to the photos.
    """
    s = args.settings
    captions = CAPTIONS.get(s.captions, []) if isinstance(s.captions, str) else s.captions
    if not captions:
        raise UserError(f"captions={s.captions}: expected {', '.join(CAPTIONS)}, or a list of captions")
    rows = []
    for target in args.targets:
        pairs = {}  # many cells may make the same pair
        for cell in concepts.forget_cells(args.world, [target]):
            instead = concepts.substitute(args.world, args.forgotten, *cell)
            for caption in captions:
                said = concepts.cell_prompt(caption, *cell)
                if s.word:
                    pairs[said] = in_style(said, concepts.say(s.word, target, s.underscores))
                else:
                    pairs[concepts.cell_prompt(caption, *instead)] = [said]
        pairs = [(anchor, said) for anchor, said in pairs.items() if anchor not in said]
        if not pairs:
            raise UserError(f"captions={s.captions}: none of them names {target}")
        rows += spread(pairs, s.images)
    return rows
