"""Protocols: what is shipped, what the hash covers, what is refused."""

from dataclasses import fields, replace

import pytest
from omegaconf import OmegaConf

from evaluation import canvas, protocol
from evaluation.core.errors import UserError

SHIPPED = sorted(path.stem for path in protocol.FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name):
    p = protocol.load(name)
    assert set(p.themes) <= set(canvas.THEMES) and set(p.objects) <= set(canvas.OBJECTS)
    assert set(p.targets) <= {*p.themes, *p.objects} - {canvas.PHOTO}
    assert list(p.themes) == sorted(p.themes) and list(p.objects) == sorted(p.objects)  # order of the labels
    assert (canvas.PHOTO in p.counted) == p.count_photo


def test_benchmark_values():
    p, published = protocol.load("canvas"), protocol.load("canvas-published")
    assert (len(p.themes), len(p.objects), p.seeds) == (51, 20, canvas.SEEDS)
    assert (p.steps, p.guidance, p.size, p.format, p.count_photo) == (100, 9.0, 512, "png", False)
    assert len(p.counted) == 50 and len(published.counted) == 51
    assert p.prompt(canvas.PHOTO, "Sea") == "A Sea image in Photo style."
    assert published.prompt(canvas.PHOTO, "Sea") == "A Sea image in Seed Images style."
    assert published.format == "jpg"


def test_hash_covers_everything_but_name_and_targets():
    p = protocol.load("mini")
    for field in fields(p):
        value = getattr(p, field.name)
        other = (
            not value if isinstance(value, bool)
            else value[:-1] if isinstance(value, tuple)
            else value + ("x" if isinstance(value, str) else 1)
        )  # fmt: skip
        same = replace(p, **{field.name: other}).hash == p.hash
        assert same == (field.name in ("name", "targets")), field.name
    assert len({protocol.load(name).hash for name in SHIPPED}) == len(SHIPPED)


def test_own_file_and_refusals(tmp_path):
    content = OmegaConf.to_container(OmegaConf.load(protocol.FOLDER / "mini.yaml"))
    path = tmp_path / "own.yaml"

    def load(changed):
        OmegaConf.save(OmegaConf.create(changed), path)
        return protocol.load(path)

    assert load(content).hash == protocol.load("mini").hash and load(content).name == "own"
    with pytest.raises(UserError, match=r"unknown setting 'guidence'; did you mean guidance"):
        load(content | {"guidence": 3})
    with pytest.raises(UserError, match="'steps' is missing"):
        load({key: value for key, value in content.items() if key != "steps"})
    with pytest.raises(UserError, match="--protocol canvvas: no such protocol; did you mean canvas"):
        protocol.load("canvvas")


def test_command_line(capsys):
    protocol.main(["mini", "everything"])
    p = protocol.load("mini")
    assert capsys.readouterr().out.split() == [*(t for t in p.themes if t != canvas.PHOTO), *p.objects]
    protocol.main(["mini", "hash"])
    assert capsys.readouterr().out.strip() == p.hash
