"""Ten parametric drawings: the photographs of the miniature dataset

`draw(obj, rng)` gives one 64 x 64 picture. It is drawn at four times that size and averaged down, so edges
are smooth. Pose, place, size, colours and background vary; the silhouette alone names the object.
"""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from evaluation.mini.pen import FINE, Pen, pick, shade, smooth, trace

SIZE = 64

SKIES = [(190, 220, 245), (245, 222, 196), (214, 232, 226), (232, 216, 240), (222, 228, 236)]
GRASS = [(150, 190, 110), (190, 180, 120), (120, 176, 130), (205, 190, 150)]
NIGHTS = [(34, 28, 44), (24, 34, 46), (44, 28, 26)]
WALLS = [(36, 62, 96), (92, 40, 50), (34, 82, 76), (66, 50, 92)]
WATERS = [(176, 226, 232), (196, 230, 214), (186, 210, 240)]
VIVID = [(214, 64, 50), (226, 126, 28), (40, 110, 190), (150, 60, 160), (20, 140, 120)]
DEEP = [(120, 44, 36), (52, 60, 92), (70, 54, 44), (36, 86, 80)]
FUR = [(216, 128, 52), (96, 96, 108), (150, 104, 66), (60, 54, 60)]
PETALS = [(206, 50, 70), (226, 110, 30), (150, 70, 180), (220, 80, 150), (70, 90, 200)]
LEAVES = [(46, 116, 54), (32, 100, 84), (96, 122, 36)]
CREAM, WHITE, INK = (252, 240, 208), (250, 250, 248), (32, 26, 34)


def backdrop(rng, tops, grounds=(), horizon=0.72, spread=12):
    """A soft vertical gradient, lighter upwards, with a hill if there are colours of `grounds`."""
    top, ground = pick(rng, tops, spread), grounds and pick(rng, grounds)
    light, dark = (Image.new("RGB", (FINE, FINE), shade(top, by)) for by in (rng.uniform(1.02, 1.14), 0.94))
    image = Image.composite(light, dark, Image.linear_gradient("L"))
    if ground:
        y, bulge = FINE * (horizon + rng.uniform(-0.04, 0.04)), rng.uniform(10, 40)
        hill = ImageDraw.Draw(image)
        hill.ellipse([-FINE, y - bulge / 2, 2 * FINE, y + 3 * FINE], fill=ground)
        hill.ellipse([-FINE, y + 34, 2 * FINE, y + 3 * FINE], fill=shade(ground, 0.9))
    return image


def architectures(rng):
    """A wide house with a gable roof, or a temple with columns."""
    pen = Pen(backdrop(rng, SKIES, GRASS), rng, (0.8, 0.92), turn=2)
    roof, wall = pick(rng, DEEP), pick(rng, VIVID)
    pen.box(-0.96, 0.56, 0.96, 0.76, shade(roof, 0.8))
    if rng.random() < 0.5:
        pen.box(-0.8, -0.1, 0.8, 0.58, shade(roof, 0.9))
        for x in (-0.68, -0.23, 0.23, 0.68):
            pen.box(x - 0.12, -0.1, x + 0.12, 0.58, CREAM)
        pen.polygon([(-1, -0.1), (0, -0.72), (1, -0.1)], wall)
        pen.oval(0, -0.3, 0.14, 0.13, CREAM)
        return pen.image
    pen.box(0.42, -0.7, 0.64, -0.2, shade(roof, 0.8))
    pen.box(-0.8, -0.1, 0.8, 0.58, wall)
    pen.polygon([(-1, -0.04), (-0.62, -0.66), (0.62, -0.66), (1, -0.04)], roof)
    pen.box(-0.16, 0.1, 0.16, 0.58, shade(roof, 0.7))
    for x in (-0.5, 0.5):
        pen.box(x - 0.17, 0.1, x + 0.17, 0.4, CREAM)
    return pen.image


def butterfly(rng):
    """Four spotted wings, mirrored about a dark body."""
    pen = Pen(backdrop(rng, SKIES), rng, (0.84, 0.98), turn=14)
    wing, spot = pick(rng, VIVID), pick(rng, [CREAM, (255, 214, 70)])
    for side in (-1, 1):
        pen.oval(side * 0.5, -0.32, 0.52, 0.38, INK, side * -38)
        pen.oval(side * 0.5, -0.32, 0.42, 0.28, wing, side * -38)
        pen.oval(side * 0.4, 0.38, 0.4, 0.32, INK, side * 42)
        pen.oval(side * 0.4, 0.38, 0.3, 0.22, shade(wing, 0.8), side * 42)
        pen.oval(side * 0.62, -0.42, 0.14, 0.14, spot)
        pen.oval(side * 0.44, 0.42, 0.11, 0.11, spot)
        pen.line([(side * 0.04, -0.4), (side * 0.12, -0.72), (side * 0.26, -0.84)], 9, INK)
    pen.oval(0, 0.04, 0.11, 0.6, INK)
    return pen.image


def cats(rng):
    """A cat's face: two pointed ears, slit eyes, muzzle and whiskers."""
    pen = Pen(backdrop(rng, SKIES), rng, (0.8, 0.94), turn=9)
    fur, eye = pick(rng, FUR), pick(rng, [(150, 214, 90), (250, 210, 70)])
    pen.oval(0, 1.0, 0.62, 0.5, shade(fur, 0.75))
    for side in (-1, 1):
        pen.polygon([(side * 0.84, -0.92), (side * 0.08, -0.42), (side * 0.8, 0.1)], shade(fur, 0.75))
        pen.polygon([(side * 0.7, -0.66), (side * 0.3, -0.38), (side * 0.66, -0.1)], (240, 160, 160))
    pen.oval(0, 0.1, 0.84, 0.66, fur)
    pen.oval(0, 0.42, 0.46, 0.3, CREAM)
    for side in (-1, 1):
        pen.oval(side * 0.36, -0.04, 0.2, 0.2, eye)
        pen.oval(side * 0.36, -0.04, 0.08, 0.19, INK)
        for y in (0.26, 0.48):
            pen.line([(side * 0.4, 0.36), (side * 1.02, y)], 8, INK)
    pen.polygon([(-0.14, 0.24), (0.14, 0.24), (0, 0.4)], (200, 70, 90))
    pen.line([(-0.2, 0.54), (0, 0.44), (0.2, 0.54)], 8, INK)
    return pen.image


def fishes(rng):
    """A striped oval body with a forked tail, fins and one eye, swimming left or right."""
    pen = Pen(backdrop(rng, WATERS), rng, (0.84, 0.98), turn=8, mirror=True)
    body, band = pick(rng, VIVID), pick(rng, [CREAM, WHITE])
    fin = shade(body, 0.62)
    pen.polygon(trace("44,0 100,-50 84,0 100,50"), fin)
    pen.polygon(trace("-46,-30 2,-68 40,-60 36,-20"), fin)
    pen.polygon(trace("-20,30 10,66 34,60 26,20"), fin)
    pen.polygon(smooth(trace("-100,0 -60,-50 10,-52 66,0 10,52 -60,50")), body)
    pen.polygon(trace("-30,-44 -12,-46 -4,0 -12,46 -30,44 -20,0"), band)
    pen.polygon(trace("14,-40 28,-30 34,0 28,30 14,40 20,0"), band)
    pen.oval(-0.58, -0.12, 0.14, 0.14, WHITE)
    pen.oval(-0.6, -0.12, 0.07, 0.07, INK)
    for x, y, r in ((-0.86, -0.52, 0.08), (-0.7, -0.76, 0.11)):
        pen.oval(x, y, r, r, WHITE)
    return pen.image


def flame(rng):
    """Red, orange and yellow tongues inside each other over crossed logs, in the dark."""
    pen = Pen(backdrop(rng, NIGHTS, spread=6), rng, (0.84, 0.96), turn=4, mirror=True)
    tip = int(rng.uniform(-12, 20))
    left, right = "-60,50 -66,0 -50,-44! -26,-10 -14,-50", "26,-50 34,-10 56,-50! 70,10 56,50 0,80"
    tongue = trace(f"{left} {tip},-100! {right}")
    hot = [(226, 48, 24), (252, 140, 26), (255, 232, 110)]
    for size, colour in zip((1.0, 0.7, 0.38), hot, strict=True):
        pen.polygon(smooth([(x * size, 0.7 + (y - 0.7) * size) for x, y in tongue]), pick(rng, [colour], 8))
    for side in (-1, 1):
        pen.line([(side * -0.74, 0.9), (side * 0.74, 0.64)], 30, (122, 72, 40))
        pen.oval(side * 0.74, 0.64, 0.12, 0.12, (214, 160, 104))
    return pen.image


def flowers(rng):
    """One large daisy on a stem with two leaves."""
    pen = Pen(backdrop(rng, SKIES, GRASS, horizon=0.86), rng, (0.86, 0.98), turn=7)
    petal, leaf = pick(rng, PETALS), pick(rng, LEAVES)
    pen.line([(0, -0.3), (0.04, 0.4), (0, 1.1)], 20, leaf)
    for side in (-1, 1):
        blade = smooth(trace("0,92! 30,40 66,42! 50,84"))
        pen.polygon([(side * x, y) for x, y in blade], shade(leaf, 1.15))
    count, first = 7 + int(rng.random() * 3), rng.uniform(0, 40)
    for k in range(count):
        angle = first + 360 * k / count
        x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        pen.oval(0.42 * x, -0.32 + 0.42 * y, 0.27, 0.17, shade(petal, 1.0 if k % 2 else 0.82), angle)
    pen.oval(0, -0.32, 0.27, 0.27, shade(petal, 0.4))
    pen.oval(0, -0.32, 0.22, 0.22, pick(rng, [(255, 214, 60), CREAM]))
    return pen.image


def sea(rng):
    """Rows of dark waves with white crests below a low sun, sometimes with a sail."""
    image = backdrop(rng, SKIES)
    draw, water = ImageDraw.Draw(image), pick(rng, [(30, 100, 160), (24, 120, 140), (40, 76, 140)])
    top, sun = rng.uniform(86, 112), rng.uniform(50, 206)
    draw.ellipse([sun - 30, top - 66, sun + 30, top - 6], fill=pick(rng, [(250, 190, 60), (240, 120, 70)]))
    if rng.random() < 0.5:
        boat = sun + (90 if sun < 128 else -90)
        draw.polygon([(boat, top - 76), (boat, top - 10), (boat + 46, top - 10)], fill=(190, 60, 60))
        hull = [(boat - 34, top - 6), (boat + 50, top - 6), (boat + 30, top + 14), (boat - 20, top + 14)]
        draw.polygon(hull, fill=INK)
    length, phase = rng.uniform(84, 112), rng.uniform(0, 90)
    for row in range(3):
        y, offset = top + row * (246 - top) / 3, phase + row * length / 2
        crest = [(x, y + 96 * (((x + offset) % length) / length - 0.5) ** 2) for x in range(-4, FINE + 8, 4)]
        floor = [(FINE + 4, FINE), (-4, FINE)]
        draw.polygon(crest + floor, fill=WHITE)
        draw.polygon([(x, z + 17) for x, z in crest] + floor, fill=shade(water, 1.15 - 0.2 * row))
    return image


def statues(rng):
    """A pale stone bust on a wide plinth before a dark wall."""
    pen = Pen(backdrop(rng, WALLS), rng, (0.84, 0.96), turn=2, mirror=True)
    stone = pick(rng, [(240, 238, 232), (244, 230, 206), (222, 236, 238)], 6)
    dark, hair = shade(stone, 0.6), shade(stone, 0.8)
    pen.box(-0.7, 0.72, 0.7, 1.0, dark)
    pen.box(-0.52, 0.48, 0.52, 0.74, hair)
    pen.polygon(smooth(trace("-30,50 -72,34 -74,0 -20,-12 20,-12 74,0 72,34 30,50")), stone)
    pen.polygon(smooth(trace("20,-12 74,0 72,34 30,50 0,50 -50,0")), hair)
    pen.polygon(trace("-17,-30 17,-30 22,0 0,16 -22,0"), dark)
    pen.oval(0, -0.5, 0.34, 0.42, stone)
    pen.polygon(trace("4,-78 36,-72 32,-30 8,-9 -2,-9 4,-30 -14,-34 0,-56"), hair)
    pen.polygon(smooth(trace("-42,-40 -46,-84 -10,-106 34,-98 48,-50 34,-30 28,-66 -16,-76 -30,-62")), dark)
    return pen.image


def towers(rng):
    """A tall narrow tower: striped lighthouse or crenellated keep."""
    pen, body = Pen(backdrop(rng, SKIES, GRASS, horizon=0.84), rng, (0.88, 0.98), turn=2), pick(rng, VIVID)
    if rng.random() < 0.5:
        pen.polygon(trace("-44,94 -25,-50 25,-50 44,94"), shade(body, 0.5))
        for k in range(5):
            low, high = 0.38 - 0.035 * k, 0.38 - 0.035 * (k + 1)
            y = 0.92 - 0.28 * k
            pen.polygon([(-low, y), (low, y), (high, y - 0.28), (-high, y - 0.28)], WHITE if k % 2 else body)
        pen.box(-0.34, -0.56, 0.34, -0.44, INK)
        pen.box(-0.18, -0.76, 0.18, -0.56, (255, 224, 90))
        pen.polygon([(-0.28, -0.74), (0, -1), (0.28, -0.74)], shade(body, 0.6))
        return pen.image
    wall = pick(rng, DEEP)
    pen.polygon([(-0.34, 0.94), (-0.28, -0.5), (0.28, -0.5), (0.34, 0.94)], shade(wall, 1.25))
    pen.box(0.02, -0.5, 0.29, 0.94, wall)
    pen.box(-0.44, -0.72, 0.44, -0.46, wall)
    for x in (-0.33, 0, 0.33):
        pen.box(x - 0.11, -0.96, x + 0.11, -0.7, wall)
    for y in (-0.26, 0.16):
        pen.box(-0.1, y, 0.1, y + 0.24, (255, 226, 120))
    pen.box(-0.14, 0.62, 0.14, 0.94, INK)
    return pen.image


def trees(rng):
    """A brown trunk under one round crown, or a conifer of three tiers."""
    pen = Pen(backdrop(rng, SKIES, GRASS, horizon=0.8), rng, (0.84, 0.96), turn=3, mirror=True)
    leaf, bark = pick(rng, LEAVES), pick(rng, [(104, 66, 40)])
    if rng.random() < 0.4:
        pen.box(-0.13, 0.5, 0.13, 1.0, bark)
        for k, (top, bottom, half) in enumerate([(0.0, 0.66, 0.8), (-0.46, 0.22, 0.62), (-1.0, -0.2, 0.44)]):
            pen.polygon([(-half, bottom), (0, top - 0.1), (half, bottom)], shade(leaf, 0.75 + 0.25 * k))
        return pen.image
    pen.polygon(trace("-14,10 14,10 16,80 28,100 -28,100 -16,80"), bark)
    lobes = ((-0.46, -0.1), (0.46, -0.08), (-0.28, -0.5), (0.3, -0.48))
    for x, y, r in (*((x, y, 0.42) for x, y in lobes), (0, -0.2, 0.5)):
        pen.oval(x + rng.uniform(-0.05, 0.05), y + rng.uniform(-0.05, 0.05), r, r, shade(leaf, 0.85))
    for x, y, r in ((-0.44, -0.22, 0.26), (-0.24, -0.56, 0.3), (0.04, -0.42, 0.28)):
        pen.oval(x, y, r, r * 0.9, shade(leaf, 1.35))
    return pen.image


OBJECTS = (architectures, butterfly, cats, fishes, flame, flowers, sea, statues, towers, trees)
DRAWINGS = {drawing.__name__.title(): drawing for drawing in OBJECTS}

# Light from the upper left: the soft shading that makes the flat drawing a photograph.
Y, X = np.mgrid[0:SIZE, 0:SIZE]
LIGHT = Image.fromarray(np.uint8(255 - 56 * (X + 2 * Y) // (3 * SIZE)))


def draw(obj, rng):
    """One photograph of the object, 64 x 64 RGB, from a numpy Generator."""
    photo = DRAWINGS[obj](rng).reduce(FINE // SIZE)
    return ImageChops.multiply(photo, Image.merge("RGB", [LIGHT] * 3))
