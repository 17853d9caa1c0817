"""The pen that draws the miniature's objects: points, colours and shapes on a canvas of 256 pixels"""

import math

from PIL import ImageDraw

FINE = 256  # side of the canvas, four times that of the finished picture


def pick(rng, colours, spread=12):
    """One of the colours, each channel moved by up to `spread`."""
    chosen = colours[int(rng.random() * len(colours))]
    return tuple(min(255, max(0, c + int(rng.uniform(-spread, spread)))) for c in chosen)


def shade(colour, factor):
    """The colour made darker (below 1) or lighter (above 1)."""
    return tuple(min(255, int(c * factor)) for c in colour)


def trace(text):
    """Points from text such as "-20,30 10,66!", in hundredths; `!` doubles a point, so it stays sharp."""
    points = []
    for word in text.split():
        x, y = word.rstrip("!").split(",")
        points += [(int(x) / 100, int(y) / 100)] * (2 if word.endswith("!") else 1)
    return points


def smooth(points, rounds=3):
    """Chaikin's corner cutting of a closed polygon: corners become curves."""
    for _ in range(rounds):
        sides = zip(points, points[1:] + points[:1], strict=True)
        cuts = [(a, b, c, d, p) for (a, b), (c, d) in sides for p in (3, 1)]
        points = [((p * a + (4 - p) * c) / 4, (p * b + (4 - p) * d) / 4) for a, b, c, d, p in cuts]
    return points


class Pen:
    """Draws in the object's own coordinates, [-1, 1] both ways and y down, onto a canvas of 256 pixels."""

    def __init__(self, image, rng, size, turn, mirror=False):
        self.image, self.draw = image, ImageDraw.Draw(image)
        self.sy = rng.uniform(*size) * FINE / 2
        self.sx = self.sy * (1 + rng.uniform(-0.06, 0.06)) * (-1 if mirror and rng.random() < 0.5 else 1)
        room = 0.55 * (FINE / 2 - self.sy)
        self.x, self.y = (FINE / 2 + rng.uniform(-room, room) for _ in range(2))
        angle = math.radians(rng.uniform(-turn, turn))
        self.cos, self.sin = math.cos(angle), math.sin(angle)

    def place(self, x, y):
        x, y = x * self.sx, y * self.sy
        return round(self.x + x * self.cos - y * self.sin), round(self.y + x * self.sin + y * self.cos)

    def polygon(self, points, colour):
        self.draw.polygon([self.place(x, y) for x, y in points], fill=colour)

    def box(self, left, top, right, bottom, colour):
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def oval(self, x, y, rx, ry, colour, angle=0.0):
        """An ellipse turned by `angle` degrees about its own centre."""
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        ring = [(rx * math.cos(k * math.pi / 24), ry * math.sin(k * math.pi / 24)) for k in range(48)]
        self.polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ring], colour)

    def line(self, points, width, colour):
        self.draw.line([self.place(x, y) for x, y in points], fill=colour, width=width, joint="curve")
