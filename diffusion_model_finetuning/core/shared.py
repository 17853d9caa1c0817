"""Work that several processes do once between them, and whose result all of them then have."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from evaluation.answers.claims import Claim, agree, claimed
from evaluation.core.tensors import Tensors, cached


def shared(folder: str | Path, blocks: Mapping, done: Callable) -> Iterator[tuple[Claim, object]]:
    """Yields (claim, block) of the `blocks`, key -> block, that are not `done(block)`, until all of them are.

    It waits while other processes make the last ones, and takes over from one that ends before it is done.
    Claims lie in `folder`.
    """
    agree(folder, {}, "shared work")
    while not all(map(done, blocks.values())):
        yield from claimed(folder, blocks.items(), done)


def cached_once(path: str | Path, make) -> Tensors:
    """`cached` of core/tensors.py; if several processes lack the file at once, one of them makes it."""
    path, tensors = Path(path), None
    for _ in shared(path.parent / ".claims", {path.stem: path}, Path.is_file):
        tensors = cached(path, make)
    return tensors or cached(path, make)
