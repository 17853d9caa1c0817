"""Measurement protocols: everything that changes a pixel or a score, under one name and one hash.

A protocol is a YAML file in `evaluation/protocols/`, or any file of that form. Numbers of different hashes
are never mixed silently; the hash leaves out what changes no number of a single run (`name`, `targets`).
"""

import argparse
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from omegaconf import OmegaConf

from evaluation import canvas
from evaluation.core.errors import UserError, closest, command
from evaluation.core.files import digest

FOLDER = Path(__file__).parent / "protocols"
EVERYTHING = {  # what `all` stands for
    "themes": canvas.THEMES,
    "objects": canvas.OBJECTS,
    "targets": canvas.STYLES + canvas.OBJECTS,
}


@dataclass(frozen=True)
class Protocol:
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

    @property
    def counted(self) -> tuple[str, ...]:
        """The themes that count in UA, IRA and CRA."""
        return tuple(theme for theme in self.themes if self.count_photo or theme != canvas.PHOTO)

    @property
    def hash(self) -> str:
        return digest({k: v for k, v in asdict(self).items() if k not in ("name", "targets")})

    def prompt(self, theme: str, obj: str) -> str:
        return canvas.prompt(theme, obj, self.template, self.photo)


def from_dict(content: dict, source: str = "protocol", kind=Protocol):
    """A protocol of that kind: checks the keys, turns lists into tuples; `source` is for error messages."""
    known = {field.name for field in fields(kind)}
    for key in content:
        if key not in known:
            raise UserError(f"{source}: unknown setting {key!r}; {closest(key, sorted(known))}")
    if missing := sorted(known - set(content)):
        raise UserError(f"{source}: setting {missing[0]!r} is missing")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})


def load(name: str | Path, folder: Path = FOLDER, kind=Protocol, everything=EVERYTHING):
    """The protocol of that name, or the one in that YAML file; raises UserError.

    `everything`: what `all` stands for in a setting.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        shipped = sorted(p.stem for p in folder.glob("*.yaml"))
        raise UserError(f"--protocol {name}: no such protocol; {closest(str(name), shipped)}")
    content = OmegaConf.to_container(OmegaConf.load(path))
    for key, names in everything.items():
        if content.get(key) == "all":
            content[key] = names
    return from_dict({"name": path.stem, **content}, str(path), kind)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description="Print the names in a protocol, for use in scripts.")
    parser.add_argument("protocol")
    parser.add_argument("what", choices=["hash", "targets", "themes", "objects", "everything"])
    args = parser.parse_args(argv)
    protocol = load(args.protocol)
    everything = [name for name in (*protocol.themes, *protocol.objects) if name != canvas.PHOTO]
    names = {"hash": [protocol.hash], "everything": everything}
    print(*(names.get(args.what) or getattr(protocol, args.what)))


if __name__ == "__main__":
    main()
