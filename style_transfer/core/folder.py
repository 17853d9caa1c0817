"""The folder that transfer.py fills: what made its outputs, what is missing in it, writing in the background,
and what cannot be used

Images and pairs that cannot be used do not stop the rest; they are listed at the end with their reasons.
"""

import contextlib
from concurrent.futures import Executor
from pathlib import Path

import torch

from evaluation.answers.claims import Claim, agree
from evaluation.core.environment import made_with
from evaluation.core.errors import UserError, brief
from style_transfer.core import images, weights

FAULTS = (UserError, torch.OutOfMemoryError, torch.linalg.LinAlgError)  # of one image or pair, not of all
LISTED = 50  # failures spelled out


def agreed_batch(args, pairs, files: dict[str, Path], device: str) -> int:
    """-> pairs in a block, as whoever began the folder chose. Raises UserError if its outputs were made with
    other weights, options or pairs."""
    prints = {name: weights.fingerprint(path) for name, path in files.items()}
    identity = {"method": args.method, "weights": prints, "options": args.options, "dtype": args.dtype}
    identity |= {"channels_last": args.channels_last} | pairs.identity
    usual = max(4, 36 * 64 // pairs.size) * (4 if device.startswith("cuda") else 1)
    first = {"batch": args.batch or usual, "made_with": made_with(device)}
    return agree(args.out, identity, "outputs", **first)["batch"]


class Missing:
    """The blocks whose outputs are not all there, up to `limit` pairs of them all, the last block whole."""

    def __init__(self, folder: Path, pairs, batch: int, limit: int | None):
        self.folder, self.pairs, self.blocks, count = folder, pairs, [], 0
        for key, block in pairs.blocks(batch):
            if limit is not None and count >= limit:
                break
            self.blocks.append((key, block))
            count += block.size
        self.place = {block: number for number, (_, block) in enumerate(self.blocks)}

    def done(self, block) -> bool:
        paths = (self.pairs.path(c, s) for c in block.contents for s in block.styles)
        return all((self.folder / path).exists() for path in paths)

    def left(self) -> list:
        return [block for _, block in self.blocks if not self.done(block)]

    def after(self, block):
        """The next that is missing, or None."""
        return next((b for _, b in self.blocks[self.place[block] + 1 :] if not self.done(b)), None)


class Writer:
    """Writes a block's outputs in threads while the next block's are made; the block stays claimed
    meanwhile."""

    def __init__(self, pool: Executor, folder: Path):
        self.pool, self.folder, self.jobs, self.claim = pool, folder, [], contextlib.ExitStack()

    def write(self, outputs: list[tuple], claim: Claim) -> int:
        """(pixels, path) of a block, after those of the block before -> how many: none if the claim was
        lost."""
        self.finish()
        outputs = outputs if claim.held() else []
        self.claim = claim.release.pop_all()
        self.jobs = [self.pool.submit(images.save, pixels, self.folder / path) for pixels, path in outputs]
        return len(outputs)

    def finish(self) -> None:
        with self.claim:
            for job in self.jobs:
                job.result()
        self.jobs = []

    def close(self) -> None:
        """Lets go of the claim, also of outputs that an error left unwritten."""
        self.claim.close()


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
