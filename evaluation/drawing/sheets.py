"""Sheets of images: their measures, what they share, and the sheet of a forgotten pair

A pair, one object in one style, is shown by its row and its column: the style with every object, and the
object in every style. The pair itself is framed.
"""

from PIL import Image, ImageDraw, ImageFont

from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.canvas import Target
from evaluation.data.pictures import thumbnail
from evaluation.protocol import Protocol
from evaluation.reporting.formats import EDGE, GREY, INK, MARK, shown

WIDTH, MARGIN, LABELS, HEADER = 1400, 26, 128, 140  # pixels: page, border, names on the left, text on top
GAP, PAIR_GAP, OBJECT_GAP = 8, 4, 22  # between columns, between base and unlearned, between objects
COLUMNS, LARGEST = 11, 150  # images side by side, and pixels of an image, at most
NAMES = 20  # pixels for the names above a line of a pair's images
font = ImageFont.load_default  # of a size in pixels


def edged(image: Image.Image) -> Image.Image:
    """The image itself, with an edge drawn inside it: white images end somewhere, too."""
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=EDGE)
    return image


def side_of(count: int) -> int:
    """Pixels of an image where so many stand side by side."""
    return min((WIDTH - 2 * MARGIN - LABELS + GAP) // count - GAP, LARGEST)


def write_title(draw: ImageDraw.ImageDraw, method: str, targets: list[Target]) -> None:
    names = " and ".join(" in ".join(map(canvas.spoken, filter(None, (t.object, t.style)))) for t in targets)
    draw.text((MARGIN, MARGIN + 26), f"{method}: {names} forgotten", INK, font(34), "ls", stroke_width=0.6)
    draw.text((MARGIN, MARGIN + 58), "same prompts, same noise; the target is framed", GREY, font(20), "ls")


def write_fitting(draw, where, text: str, width: int, anchor: str, colour: str) -> None:
    """One line of text in the largest size, up to 20 pixels, that is no wider than `width`."""
    size = next((size for size in range(20, 9, -1) if font(size).getlength(text) <= width), 9)
    draw.text(where, text, colour, font(size), anchor, stroke_width=0.3 if colour == MARK else 0)


def write_row_names(draw, name: str, top: int, side: int, colour: str) -> None:
    """Left of two rows of images, the base model's at `top` and the unlearned one's below."""
    right, middle = MARGIN + LABELS - 12, top + side / 2
    write_fitting(draw, (right, middle - 12), name, LABELS - 12, "rm", colour)
    draw.text((right, middle + 12), "base", GREY, font(17), "rm")
    draw.text((right, middle + side + PAIR_GAP), "unlearned", GREY, font(17), "rm")


def pair_lines(pair: Target, protocol: Protocol, seed: int) -> list[list[Cell]]:
    """The cells of the pair's row and of its column, in lines of at most COLUMNS."""
    themes = sorted(protocol.themes, key=lambda theme: theme != canvas.PHOTO)
    row = [Cell(pair.style, obj, seed) for obj in protocol.objects]
    column = [Cell(theme, pair.object, seed) for theme in themes]
    return [cells[i : i + COLUMNS] for cells in (row, column) for i in range(0, len(cells), COLUMNS)]


def pair_sheet(method: str, pair: Target, lines: list[list[Cell]], base, own) -> Image.Image:
    """The page, RGB, WIDTH pixels wide; `base` and `own`: cell -> image of either model."""
    side = side_of(max(map(len, lines)))
    step = NAMES + 2 * side + PAIR_GAP + OBJECT_GAP
    page = Image.new("RGB", (WIDTH, HEADER + len(lines) * step), "white")
    draw = ImageDraw.Draw(page)
    write_title(draw, method, [pair])
    for number, cells in enumerate(lines):
        top, is_row = HEADER + number * step, {cell.theme for cell in cells} == {pair.style}
        write_row_names(draw, shown(pair.style if is_row else pair.object), top, side, MARK)
        for place, cell in enumerate(cells):
            left, own_top = MARGIN + LABELS + place * (side + GAP), top + side + PAIR_GAP
            page.paste(edged(thumbnail(base[cell], side)), (left, top))
            page.paste(edged(thumbnail(own[cell], side)), (left, own_top))
            covered, name = pair.covers(cell.theme, cell.object), cell.object if is_row else cell.theme
            middle = (left + side / 2, top - 8)
            write_fitting(draw, middle, shown(name), side + GAP - 2, "md", MARK if covered else INK)
            if covered:
                corners = (left - 5, top - 5, left + side + 4, own_top + side + 4)
                draw.rectangle(corners, outline=MARK, width=3)
    return page
