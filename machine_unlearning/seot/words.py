"""Where a prompt names a target: found by its tokens, whatever the template."""

from evaluation import canvas
from machine_unlearning.core.attention import tokens_of


def span(tokenizer, prompt: str, words: str) -> list[int]:
    """Positions of the tokens that spell `words` in a prompt; none if they do not occur."""
    try:
        return tokens_of(tokenizer, prompt, words)
    except ValueError:
        return []


def style_span(tokenizer, prompt: str, style: str) -> list[int]:
    """Positions of a style's name with the word "style"; Artist Sketch style does not name Sketch."""
    longer = [name for name in canvas.STYLES + canvas.UNUSED_STYLES if name.endswith(f"_{style}")]
    if any(span(tokenizer, prompt, f"{canvas.spoken(name)} style") for name in longer):
        return []
    return span(tokenizer, prompt, f"{canvas.spoken(style)} style")


def port_tokens(style: str | None, obj: str | None) -> list[int]:
    """Where the official port takes a target to be: one token a word, in the benchmark's template."""
    of_style = range(5, 6 + len(style.split("_"))) if style else ()
    return [*([2] if obj else []), *of_style]


def target_tokens(tokenizer, prompt: str, targets: list[canvas.Target], fixed: bool) -> list[int]:
    """Positions of all targets that a prompt names, ascending; both words of a pair must be there.

    `fixed`: by the port's rule in place of the words found. Words cut off a long prompt have no position.
    """
    found = set()
    for style, obj in targets:
        spans = [style_span(tokenizer, prompt, style)] if style else []
        spans += [span(tokenizer, prompt, canvas.spoken(obj))] if obj else []
        if all(spans):
            found.update(*([port_tokens(style, obj)] if fixed else spans))
    return sorted(found & {*range(token_count(tokenizer, prompt) - 1)})


def token_count(tokenizer, prompt: str) -> int:
    """Tokens of the encoded prompt with start and end, without padding."""
    return len(tokenizer(prompt, truncation=True)["input_ids"])
