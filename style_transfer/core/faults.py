"""Images and pairs that cannot be used: the rest goes on, and they are listed at the end with their
reasons"""

import torch

from evaluation.core.errors import UserError, brief

FAULTS = (UserError, torch.OutOfMemoryError, torch.linalg.LinAlgError)  # of one image or pair, not of all
LISTED = 50  # failures spelled out


def salvaged(items: list, run, fail):
    """Yields (items, run(items)); if that fails, the same of every item alone, or fail(item, reason)."""
    reason = None
    try:
        made = run(items)
    except FAULTS as error:
        memory = "not enough memory; give a smaller --batch or --max-side"
        reason = memory if isinstance(error, torch.OutOfMemoryError) else brief(error)
    # past the handler, which keeps the failed attempt's memory
    if reason is None:
        yield items, made
    elif len(items) == 1:
        fail(items[0], reason)
    else:
        for item in items:
            yield from salvaged([item], run, fail)


def report(failed: dict[str, str]) -> str:
    """`failed`: name of an image or a pair -> reason, which may begin with the name."""
    lines = [text if text.startswith(name) else f"{name}: {text}" for name, text in failed.items()]
    lines = [f"\n  {line}" for line in lines[:LISTED]] + ["\n  ..."] * (len(lines) > LISTED)
    return f"{len(failed)} inputs could not be used, all else is done:{''.join(lines)}"
