"""Where a prompt names a target: told by its token ids, whatever the template.

`ids` are a prompt's, with start and end, without padding.
"""

from evaluation import canvas
from machine_unlearning.core.attention import place, spelled


def style_span(tokenizer, ids: list[int], style: str) -> list[int]:
    """Positions of a style's name with the word "style"; Artist Sketch style does not name Sketch."""
    span = lambda name: place(ids, spelled(tokenizer, f"{canvas.spoken(name)} style"))  # noqa: E731
    longer = [name for name in canvas.STYLES + canvas.UNUSED_STYLES if name.endswith(f"_{style}")]
    return [] if any(map(span, longer)) else span(style)


def port_tokens(style: str | None, obj: str | None) -> list[int]:
    """Where the official port takes a target to be: one token a word, in the benchmark's template."""
    of_style = range(5, 6 + len(style.split("_"))) if style else ()
    return [*([2] if obj else []), *of_style]


def target_tokens(tokenizer, ids: list[int], targets: list[canvas.Target], fixed: bool) -> list[int]:
    """Positions of all targets that a prompt names, ascending; both words of a pair must be there.

    `fixed`: by the port's rule in place of the words. Words cut off a long prompt have no position.
    """
    positions = set()
    for style, obj in targets:
        spans = [style_span(tokenizer, ids, style)] if style else []
        spans += [place(ids, spelled(tokenizer, canvas.spoken(obj)))] if obj else []
        if all(spans):
            positions.update(*([port_tokens(style, obj)] if fixed else spans))
    return sorted(positions & {*range(len(ids) - 1)})
