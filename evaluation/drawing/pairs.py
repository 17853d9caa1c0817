"""The sheets of one forgotten pair, by every method that forgot it: `pairs.png`, and the report's picture"""

from collections import defaultdict

import numpy as np
from PIL import Image

from evaluation.drawing.gallery import Album, sheet_of
from evaluation.drawing.sheets import pair_lines, pair_sheet
from evaluation.metrics.published import spelled
from evaluation.reporting.collect import BASE, Result
from evaluation.reporting.rows import grouped


def pairs_page(results: list[Result]) -> Image.Image | None:
    """A sheet of every method that forgot the pair most of them did; None if no images of a pair are here.

    Images are those of answer sets and, where these are gone, of their sprites.
    """
    bases = {result.origin: result for result in results if result.method == BASE}
    above = {origin: Album(sheet_of(base, None)) for origin, base in bases.items()}
    sheets = defaultdict(list)  # pair -> what its sheets are drawn of
    for label, group in grouped(results).items():
        for result in group:
            if result.kind != "pair" or result.method == BASE or result.origin not in bases:
                continue
            (pair,), base = result.targets, above[result.origin]
            lines = pair_lines(pair, result.protocol, result.protocol.seeds[0])
            own = Album(sheet_of(result, bases[result.origin]))
            if all(cell in base and cell in own for line in lines for cell in line):
                sheets[pair].append((spelled(label), pair, lines, base, own))
    if not sheets:
        return None
    most = max(sheets.values(), key=len)  # of several the first
    return Image.fromarray(np.vstack([pair_sheet(*parts) for parts in most]))
