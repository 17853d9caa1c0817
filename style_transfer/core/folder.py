"""The folder that transfer.py fills: what made its outputs, what is missing in it, and writing in the
background"""

import contextlib
from concurrent.futures import Executor
from pathlib import Path

from evaluation.answers.claims import Claim, agree
from evaluation.core.environment import made_with
from style_transfer.core import images, weights
from style_transfer.core.pairs import Benchmark, Folders


def open_pairs(args) -> Benchmark | Folders:
    if args.data:
        return Benchmark(args.protocol, args.data, args.method, args.styles, args.objects)
    return Folders(args.content, args.style, args.max_side)


def agreed_batch(args, pairs, files: dict[str, Path], device: str) -> int:
    """-> pairs in a block, as whoever began the folder chose. Raises UserError if its outputs were made with
    other weights, options or pairs."""
    prints = {name: weights.fingerprint(path) for name, path in files.items()}
    how = {"options": args.options, "dtype": args.dtype, "channels_last": args.channels_last}
    usual = max(4, 36 * 64 // pairs.size) * (4 if device.startswith("cuda") else 1)
    return agree(
        args.out,
        {"method": args.method, "weights": prints, **how, **pairs.identity},
        "outputs",
        batch=args.batch or usual,
        made_with=made_with(device),
    )["batch"]


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

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        with self.claim:
            if kind is None:
                self.finish()
