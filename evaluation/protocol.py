"""Measurement protocols: everything that changes a pixel or a score, under one name and one hash.

A protocol is a YAML file in `evaluation/protocols/`, or any file of that form. Numbers of different hashes
are never mixed silently; the hash leaves out what changes no number of a single run (`name`, and what the
tables unlearn: `targets`, `pairs`, `orders`).
"""

import argparse
import functools
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

from evaluation import canvas
from evaluation.core.config import check_choices, check_lists, check_ranges, read_settings, structured
from evaluation.core.errors import UserError, closest, command
from evaluation.core.files import digest

FOLDER = Path(__file__).parent / "protocols"
EVERYTHING = {"themes": canvas.THEMES, "objects": canvas.OBJECTS, "targets": canvas.STYLES + canvas.OBJECTS}
EVERYTHING |= {"pairs": canvas.PAIRS}
UNHASHED = ("name", "targets", "pairs", "orders")
CHOICES = {
    "themes": canvas.THEMES + canvas.UNUSED_STYLES,
    "objects": canvas.OBJECTS,
    "noise": ("cell",),
    "scheduler": ("ddim",),
    "precision": ("float32", "float16", "bfloat16"),
    "format": ("png", "jpg"),
    "fid_extractor": ("inception", "torchvision", "classifier"),
}
RANGES = {
    "seeds": (0, 2**63 - 1),
    "steps": (1, 1000),  # as many as the models were trained with
    "guidance": (0, 1000),
    "size": (8, 4096),
    "fid_images": (canvas.NUMBERS[0], canvas.NUMBERS[-1]),
}


@dataclass(frozen=True)
class Protocol:
    """Raises UserError for a value that is none of its choices, out of range, or listed twice.

    A field with a default came later: at its default it is not in the hash, so that older hashes stay.
    """

    name: str
    themes: tuple[str, ...]  # sampled, in the order of the style classifier's labels
    objects: tuple[str, ...]
    seeds: tuple[int, ...]
    template: str  # prompt of a cell, with {object} and {theme}
    photo: str  # what prompts call the photo theme
    noise: str  # "cell": the initial latent depends on (seed, theme, object) alone
    scheduler: str  # "ddim": eta 0, leading spacing, offset 1
    steps: int
    guidance: float
    size: int  # pixels
    precision: str  # float32, or the dtype of autocast: float16, bfloat16
    format: str  # png, or jpg
    count_photo: bool  # whether the photo theme counts in UA, IRA and CRA
    fid_extractor: str  # inception, torchvision, or classifier
    fid_images: tuple[int, ...]  # numbers of the real images in every folder
    targets: tuple[str, ...]  # what the tables of this protocol unlearn
    photos: str | None = None  # digest of the photos, numbered by the seeds, that a cell edits
    photo_guidance: float | None = None  # s_I of those photos
    photo_in_ira: bool = True  # whether the photo theme, where it counts, is a class of a style's IRA as well
    pairs: tuple[str, ...] = ()  # what the finer-scale table unlearns, each on its own
    orders: tuple[str, ...] = ()  # what the sequential table unlearns in turn, requests joined by ~

    def __post_init__(self):
        settings = self.__dict__
        check_lists(settings, empty=("targets", "pairs", "orders"))
        check_choices(settings, CHOICES | {"targets": self.everything})
        check_ranges(settings, RANGES)
        for pair in self.pairs:
            if canvas.parse_targets(pair, "pairs")[0].kind != "pair":
                raise UserError(f"pairs: {pair}: expected an object in one style, such as Sketch+Cats")
        for order in self.orders:
            canvas.parse_targets(order.replace(canvas.CHAIN, ","), "orders")
        if self.photo_guidance is not None:
            check_ranges(settings, {"photo_guidance": (0, 1000)})
        if self.size % 8:
            raise UserError(f"size={self.size}: expected a multiple of 8")
        check_name(self.name)
        wanted = {"theme"} if self.photos else {"object", "theme"}  # a photo shows its object
        names = set(re.findall(r"{(\w+)}", self.template))
        if names != wanted or set("{}") & set(re.sub(r"{\w+}", "", self.template)):
            expected = " and ".join(f"{{{name}}}" for name in sorted(wanted))
            raise UserError(f"template={self.template}: expected a text with {expected} and no other braces")

    @property
    def counted(self) -> tuple[str, ...]:
        """The themes that count in UA, IRA and CRA."""
        return tuple(theme for theme in self.themes if self.count_photo or theme != canvas.PHOTO)

    @property
    def everything(self) -> list[str]:
        """All that can be unlearned of it: its styles and objects."""
        return [name for name in (*self.themes, *self.objects) if name != canvas.PHOTO]

    @property
    def hash(self) -> str:
        return hash_of(self, without=UNHASHED)

    def prompt(self, theme: str, obj: str) -> str:
        return canvas.prompt(theme, obj, self.template, self.photo)


def hash_of(protocol, without: tuple[str, ...]) -> str:
    """The hash of a protocol of any kind, `without` fields that change no number, nor those at a default."""
    values = {field.name: (getattr(protocol, field.name), field.default) for field in fields(protocol)}
    return digest({k: v for k, (v, default) in values.items() if k not in without and v != default})


def from_dict(content: dict, source: str, kind=Protocol):
    """A protocol of that kind, checked; raises UserError that begins with `source`."""
    try:
        return _checked(kind, json.dumps(content, default=str))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


@functools.cache  # a table reads hundreds of manifests of one protocol
def _checked(kind, content: str):
    return structured(kind, json.loads(content))


def from_manifest(content: dict, source: str, kind=Protocol):
    """The protocol that a manifest holds. Raises UserError if a newer version of this code wrote it, or if it
    was changed since, or one that it names: its hash is then another than the one beside it."""
    stated = content.get("hash")
    content = {key: value for key, value in content.items() if key != "hash"}
    if newer := sorted(content.keys() - {field.name for field in fields(kind)}):
        unknown = f"its protocol has {newer[0]!r}, which this version of the code does not know"
        raise UserError(f"{source}: {unknown}; read it with the version that wrote it")
    protocol = from_dict(content, source, kind)
    if stated not in (None, protocol.hash):
        changed = "it, or one that it names, was changed since; restore that, or make it again"
        raise UserError(f"{source}: its protocol is not the one of its hash {stated}; {changed}")
    return protocol


def check_name(name: str, key: str = "name") -> None:
    """UserError unless a file can be called so."""
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise UserError(f"{key}={name}: expected letters, digits and .+-_, as in a file name")


def load(
    name: str | Path, folder: Path = FOLDER, kind=Protocol, everything=EVERYTHING, flag: str = "--protocol"
):
    """The protocol of that name or YAML file; raises UserError, which names the flag. `everything`: what
    `all` stands for. Under `like`, a file may name a shipped protocol that it has everything else from."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    shipped = sorted(file.stem for file in folder.glob("*.yaml"))
    if not path.exists():
        raise UserError(f"{flag} {name}: no such protocol; {closest(str(name), shipped)}")
    content = {"name": path.stem, **read_settings(path)}
    if (like := content.pop("like", None)) is not None:
        if like not in shipped:
            raise UserError(f"{path}: like: no such protocol as {like}; {closest(str(like), shipped)}")
        content = read_settings(folder / f"{like}.yaml") | content
    named = {key: names for key, names in everything.items() if content.get(key) == "all"}
    return from_dict(content | named, str(path), kind)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description="Print the names in a protocol, for use in scripts.")
    parser.add_argument("protocol")
    parser.add_argument("what", choices=["hash", "targets", "themes", "objects", "everything"])
    args = parser.parse_args(argv)
    names = getattr(load(args.protocol), args.what)
    print(names if args.what == "hash" else " ".join(names))


if __name__ == "__main__":
    main()
