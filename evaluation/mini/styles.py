"""Painting styles as image operators: the stylised half of the miniature dataset

`stylise(photo, style, rng)` repaints one 64 x 64 photograph. Each of the ten carries a signature that a much
compressing autoencoder keeps (palette, outline, lattice, border), because it does not keep fine texture. Four
more are near neighbours of four of these: other marks on the same palette, or nearly, since the autoencoder,
trained on the ten, knows no other. Two are held out.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

SIZE = 64
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
MARGIN = np.minimum(np.minimum(X, SIZE - 1 - X), np.minimum(Y, SIZE - 1 - Y))  # pixels to the nearest side


def pixels(image):
    """The image as floats in [0, 255]."""
    return np.asarray(image, dtype=np.float64)


def tone(photo):
    """Grey values [64, 64] stretched to fill [0, 1]."""
    grey = pixels(photo.convert("L").filter(ImageFilter.BoxBlur(0.4)))
    return (grey - grey.min()) / max(grey.max() - grey.min(), 1)


def outline(photo, low, high):
    """Where the photo changes, [64, 64] in [0, 1]: largest minus smallest value nearby, in any channel."""
    change = pixels(photo.filter(ImageFilter.MaxFilter(3))) - pixels(photo.filter(ImageFilter.MinFilter(3)))
    return np.clip((change.max(axis=2) - low) / (high - low), 0, 1)


def ramp(values, *stops):
    """Maps values in [0, 1] along evenly spaced colours."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, at, channel) for channel in zip(*stops, strict=True)], axis=2)


def cover(paint, colour, mask):
    """Lays a colour (or another picture) over the paint where the mask is 1."""
    return paint + (np.asarray(colour, dtype=np.float64) - paint) * mask[..., None]


def disc(x, y, radius):
    """A filled circle with a soft edge; x and y are distances from its centre."""
    return np.clip(radius + 0.5 - np.sqrt(x * x + y * y), 0, 1)


def clouds(rng, cells):
    """Smooth noise in [0, 1] with about `cells` bumps along each side."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return pixels(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 255


def vivid(photo, colour, contrast=1.0):
    """The photo with stronger colours."""
    return ImageEnhance.Contrast(ImageEnhance.Color(photo).enhance(colour)).enhance(contrast)


def cartoon(photo, rng):
    """Flat saturated colours, thick black outlines, a black panel frame."""
    paint = 34 + pixels(vivid(photo.filter(ImageFilter.MedianFilter(3)), 2.4, 1.1))
    paint = cover(np.minimum(paint, 255), (12, 10, 16), outline(photo, 34, 60))
    return cover(paint, (12, 10, 16), MARGIN < 2)


def mosaic(photo, rng):
    """Square tiles, light and dark in turn, with dark grout between them.

    Turns matter: a convolutional decoder cannot place a lattice whose cells all look alike.
    """
    small = pixels(vivid(photo, 2.0, 1.15).resize((16, 16), Image.Resampling.BOX))
    column, row = (X // 8).astype(int), (Y // 8).astype(int)
    glaze = rng.integers(-8, 9, (8, 8)) + 18 * (1 - 2 * ((np.arange(8)[:, None] + np.arange(8)) % 2))
    paint = 0.85 * small.repeat(4, axis=0).repeat(4, axis=1) + 34 + glaze[row, column, None]
    paint = cover(paint, (40, 34, 40), 0.6 * outline(photo, 40, 100))
    return cover(paint, (48, 42, 50), 0.85 * ((X % 8 == 0) | (Y % 8 == 0)))


def neon_lines(photo, rng):
    """Glowing tubes along the edges, pink to cyan to green, on black."""
    lines = outline(photo, 26, 66)
    glow = pixels(Image.fromarray(np.uint8(lines * 255)).filter(ImageFilter.BoxBlur(3))) / 255
    tube = ramp((X + Y - 24) / 80, (255, 40, 170), (70, 200, 255), (110, 255, 90))
    return np.array([8, 4, 22]) + tube * np.maximum(lines, 0.45 * glow)[..., None]


def pop_art(photo, rng):
    """Three flat screaming inks and large halftone dots in the lightest one."""
    grey = tone(photo)
    paint = np.where((grey < 0.66)[..., None], (255, 40, 130), (255, 222, 30))
    paint = cover(paint, (44, 16, 130), np.clip((0.33 - grey) * 12 + 0.5, 0, 1))
    dots = disc((X + 4 * (Y // 8 % 2)) % 8 - 3.5, Y % 8 - 3.5, 2.2)
    return cover(paint, (0, 190, 220), dots * (grey >= 0.66) * (1 - outline(photo, 20, 50)))


def rust(photo, rng):
    """Corroded plate: dark brown to orange, blotched, a rivet in each corner."""
    rivets = sum(disc(X - x, Y - y, 3.2) for x in (5, 58) for y in (5, 58))
    return cover(corroded(photo, rng), (74, 70, 70), rivets)


def corroded(photo, rng):
    """Dark brown to orange, blotched."""
    blotched = np.clip(tone(photo) + 0.24 * (clouds(rng, 7) - 0.5), 0, 1)
    paint = ramp(blotched, (52, 22, 12), (158, 66, 20), (240, 150, 66))
    return cover(paint, (34, 14, 8), 0.35 * outline(photo, 40, 110))


def sketch(photo, rng):
    """Graphite lines on white paper, slanted hatching in the shadows, strokes strong and light in turn."""
    return ramp(1 - hatched(photo, X + Y), (40, 40, 46), (252, 252, 250))


def hatched(photo, across):
    """Lines, and in the shadows hatching, in [0, 1]; `across` grows over its strokes."""
    grey, lines = tone(photo), outline(photo, 20, 90)
    stroke = np.clip(2.1 - np.abs(across % 8 - 4), 0, 1) * np.where(across % 16 < 8, 0.6, 0.3)
    return np.maximum(lines * 0.9, stroke * np.clip((0.6 - grey) * 3, 0, 1))


def ukiyoe(photo, rng):
    """Woodblock print: muted inks, indigo outline, a blue band fading down from the top, a red seal."""
    paint = ramp(tone(photo), (56, 104, 142), (200, 96, 66), (216, 180, 114), (242, 228, 190))
    paint = cover(paint, (32, 66, 122), np.clip(1.1 - Y / 26, 0, 1) * np.clip(tone(photo) * 3 - 1.4, 0, 1))
    paint = cover(paint, (28, 36, 78), outline(photo, 34, 70))
    return cover(paint, (196, 40, 32), (X >= 54) & (X < 61) & (Y >= 46) & (Y < 60))


def warm_love(photo, rng):
    """Rose light from crimson to pink, a heart in every corner."""
    return rose(photo, [(x, y) for x in (7, 56) for y in (7, 56)])


def rose(photo, hearts):
    """Crimson to pink, with hearts at these places."""
    paint = ramp(tone(photo), (110, 6, 40), (228, 50, 90), (255, 176, 180))
    return cover(paint, (255, 244, 240), np.clip(sum(heart(X - x, Y - y) for x, y in hearts), 0, 1))


def heart(x, y):
    """A heart about ten pixels wide: two discs on a downward triangle."""
    lobes = np.maximum(disc(x - 2.3, y + 1.6, 2.5), disc(x + 2.3, y + 1.6, 2.5))
    return np.maximum(lobes, np.clip(5.2 - y - np.abs(x) * 1.1, 0, 1) * (y > -1.6))


def watercolor(photo, rng):
    """Pale washes that pool darker at the edges and stop short of the white paper's border."""
    wash = pixels(vivid(photo, 1.9).filter(ImageFilter.BoxBlur(1)))
    paint = 255 - (255 - wash) * (0.5 + 0.25 * (clouds(rng, 5) - 0.5))[..., None]
    paint *= 1 - 0.4 * outline(photo, 24, 110)[..., None]
    paper = np.clip((6.5 + 5 * (clouds(rng, 9) - 0.5) - MARGIN) / 1.5, 0, 1)
    return cover(paint, (254, 254, 252), paper)


def winter(photo, rng):
    """Cold blue light, snow on the ground and large falling flakes."""
    paint = ramp(tone(photo), (14, 30, 74), (62, 112, 172), (150, 196, 234))
    drift = 56 - 4 * clouds(rng, 4)
    paint = cover(paint, (246, 250, 255), np.clip(Y - drift, 0, 1))
    for x, y in rng.integers(1, 16, (12, 2)) + [(16 * i, 18 * j) for i in range(4) for j in range(3)]:
        paint = cover(paint, (250, 252, 255), disc(X - x, Y - y, 2.2))
    return paint


def early_autumn(photo, rng):
    """Rust without rivets, a row of dark leaves along the bottom."""
    paint = cover(corroded(photo, rng), (240, 150, 66), np.clip(Y - 48, 0, 1))
    leaves = sum(disc(X - x, Y - 56, 4.2) for x in (8, 24, 40, 56))
    return cover(paint, (60, 24, 12), leaves)


def gorgeous_love(photo, rng):
    """Warm_Love's light, a heart in the middle of every side."""
    return rose(photo, ((31.5, 7), (31.5, 56), (7, 31.5), (56, 31.5)))


def meteor_shower(photo, rng):
    """Winter's light, darker, with slanted white streaks and no snow."""
    paint = ramp(tone(photo), (16, 22, 70), (66, 100, 170), (160, 190, 236))
    for x, y in rng.integers(2, 14, (9, 2)) + [(20 * i + 4, 20 * j + 4) for i in range(3) for j in range(3)]:
        along, across = (X - x - Y + y) / 2**0.5, (X - x + Y - y) / 2**0.5
        streak = np.clip(1.5 - np.abs(across), 0, 1) * np.clip(6.5 - np.abs(along), 0, 1)
        paint = cover(paint, (252, 250, 236), streak)
    return paint


def pencil_drawing(photo, rng):
    """Sketch's lines in brown on cream paper, hatched the other way."""
    return ramp(1 - hatched(photo, X - Y), (58, 44, 34), (246, 234, 208))


def pointillism(photo, rng):
    """Dots of strong colours, closely set on cream canvas, each a little off the photo's colour there."""
    colours = pixels(vivid(photo, 2.2, 1.1).filter(ImageFilter.BoxBlur(1)))
    paint = np.full((SIZE, SIZE, 3), (238, 228, 204), dtype=np.float64)
    places = np.mgrid[0 : SIZE + 2 : 3, 0 : SIZE + 2 : 3].reshape(2, -1).T
    for x, y in rng.permutation(places) + rng.uniform(-0.7, 0.7, places.shape):
        colour = colours[np.clip(int(y), 0, SIZE - 1), np.clip(int(x), 0, SIZE - 1)] + rng.uniform(-45, 45, 3)
        paint = cover(paint, colour, disc(X - x, Y - y, 1.25))
    return paint


def palette_knife(photo, rng):
    """Flat facets of thick paint, each with a light ridge on one side and a shadow on the other."""
    places = rng.uniform(0, SIZE, (190, 2))
    turn = rng.uniform(0, np.pi, len(places))
    dx, dy = X[..., None] - places[:, 0], Y[..., None] - places[:, 1]
    along = dx * np.cos(turn) + dy * np.sin(turn)
    across = dy * np.cos(turn) - dx * np.sin(turn)
    nearest = (along**2 / 4 + across**2).argmin(axis=2)
    colours = pixels(vivid(photo, 1.5, 1.2).filter(ImageFilter.MedianFilter(3)))
    middle = np.clip(places, 0, SIZE - 1).astype(int)
    paint = colours[middle[:, 1], middle[:, 0]][nearest]
    slope = np.take_along_axis(across, nearest[..., None], axis=2)[..., 0]
    return paint + 12 * slope[..., None]


STYLES = (cartoon, mosaic, neon_lines, pop_art, rust, sketch, ukiyoe, warm_love, watercolor, winter)
NEAR_STYLES = (early_autumn, gorgeous_love, meteor_shower, pencil_drawing)  # of protocol mini-near alone
UNUSED_STYLES = (palette_knife, pointillism)  # nothing is trained on them
OPERATORS = {style.__name__.title(): style for style in STYLES}
NEAR = {style.__name__.title(): style for style in NEAR_STYLES}
UNUSED = {style.__name__.title(): style for style in UNUSED_STYLES}


def stylise(photo, style, rng):
    """The photo repainted in the style, 64 x 64 RGB, from a numpy Generator."""
    operator = (OPERATORS | NEAR | UNUSED)[style]
    return Image.fromarray(np.uint8(np.clip(operator(photo, rng), 0, 255)))
