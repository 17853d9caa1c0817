"""Protocols: what is shipped, what the hash covers, what is refused."""

import json
from dataclasses import asdict, fields, replace

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


def test_hashes_stay():
    """Those that records quote: a field that comes later has a default, which stands in no hash."""
    hashes = {name: protocol.load(name).hash for name in SHIPPED}
    assert hashes == {
        "canvas": "79f9ffeaf0d46c3d",
        "canvas-author": "6d2a8f5c84aebbf6",
        "canvas-lite": "ece39ffd062f9032",
        "canvas-published": "c725d74b2b703dd0",
        "mini": "91cb1e5aac377698",
        "mini-8": "91cb1e5aac377698",
        "mini-near": "0b1ca7d27cbdc0ca",
        "mini-tuning": "bececd578eaddf2f",
    }


CHANGES = {  # another value of every field that may have one
    "name": "other",
    "themes": ("Rust", "Mosaic", "Sketch", "Winter"),
    "objects": ("Butterfly", "Fishes", "Towers", "Trees"),
    "seeds": (188,),
    "template": "{theme}, {object}",
    "photo": "Photograph",
    "steps": 21,
    "guidance": 5.5,
    "size": 72,
    "precision": "float16",
    "format": "jpg",
    "count_photo": True,
    "fid_extractor": "inception",
    "fid_images": (1,),
    "targets": ("Rust",),
    "pairs": ("Rust+Cats",),
    "orders": ("Rust~Cats",),
    "photo_guidance": 1.5,
    "photo_in_ira": False,
}


def test_hash_covers_everything_but_name_and_targets():
    p = replace(protocol.load("mini"), targets=())  # any lists of themes and objects will do
    edited = replace(p, template="{theme}", photos="a" * 16)
    assert len({p.hash, replace(edited, photos="b" * 16).hash, edited.hash}) == 3
    assert {field.name for field in fields(p)} == {*CHANGES, "photos", "noise", "scheduler"}
    for name, value in CHANGES.items():
        same = replace(p, **{name: value}).hash == p.hash
        assert same == (name in ("name", "targets", "pairs", "orders")), name


@pytest.fixture
def load(tmp_path):
    """-> the protocol of a file that says what mini.yaml says, but for `changes`; None leaves one out."""

    def loaded(**changes):
        content = OmegaConf.to_container(OmegaConf.load(protocol.FOLDER / "mini.yaml")) | changes
        content = {key: value for key, value in content.items() if value is not None}
        OmegaConf.save(OmegaConf.create(content), tmp_path / "own.yaml")
        return protocol.load(tmp_path / "own.yaml")

    return loaded


def test_own_file(load):
    assert load().hash == protocol.load("mini").hash and load().name == "own"
    assert load(guidance=5).hash == load(guidance=5.0).hash  # one protocol, however it is written


def test_like_another(tmp_path):
    (tmp_path / "few.yaml").write_text("like: mini\nseeds: [3]\n")
    few = protocol.load(tmp_path / "few.yaml")
    assert few == replace(protocol.load("mini"), name="few", seeds=(3,))
    for like, message in (("minni", "no such protocol as minni; did you mean mini"), ("[mini]", "no such")):
        (tmp_path / "few.yaml").write_text(f"like: {like}\n")
        with pytest.raises(UserError, match=rf"few\.yaml: like: {message}"):
            protocol.load(tmp_path / "few.yaml")
    (tmp_path / "few.yaml").write_text("like: mini-8\n")  # which has no settings of its own to lend
    with pytest.raises(UserError, match="unknown setting 'like'"):
        protocol.load(tmp_path / "few.yaml")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"guidence": 3}, "unknown setting 'guidence'; did you mean guidance"),
        ({"steps": None}, "'steps' is missing"),
        ({"steps": "many"}, "steps is 'many'; expected int"),
        ({"steps": 2.5}, r"steps is 2\.5; expected int"),
        ({"steps": True}, "steps is True; expected int"),
        ({"steps": 0}, "steps=0: expected a number from 1 to 1000"),
        ({"steps": 1001}, "steps=1001: expected a number from 1 to 1000"),
        ({"guidance": -1.0}, r"guidance=-1\.0: expected a number from 0 to 1000"),
        ({"guidance": float("nan")}, "guidance=nan: expected a number"),
        ({"guidance": float("inf")}, "guidance=inf: expected a number"),
        ({"size": 60}, "size=60: expected a multiple of 8"),
        ({"size": 0}, "size=0: expected a number from 8 to 4096"),
        ({"seeds": [188, 188]}, "seeds: 188 is listed twice"),
        ({"seeds": [-1]}, "seeds=-1: expected a number from 0 to"),
        ({"seeds": [2**63]}, "seeds=9223372036854775808: expected a number from 0 to"),
        ({"size": 8192}, "size=8192: expected a number from 8 to 4096"),
        ({"themes": []}, "themes is empty; name one at least"),
        ({"themes": ["Rust", "Rust"]}, "themes: Rust is listed twice"),
        ({"seeds": [1.5]}, r"seeds is \[1\.5\]; expected tuple\[int"),
        ({"seeds": [[1]]}, r"seeds is \[\[1\]\]; expected tuple\[int"),
        ({"seeds": []}, "seeds is empty"),
        ({"themes": "Rust"}, "themes is 'Rust'; expected tuple"),
        ({"themes": ["Rust", "Skecth"]}, "themes=Skecth: no such choice; did you mean Sketch"),
        ({"themes": ["Rust", "Rust"], "targets": []}, "themes: Rust is listed twice"),
        ({"objects": ["Cat"]}, "objects=Cat: no such choice; did you mean Cats"),
        ({"objects": [], "targets": []}, "objects is empty"),
        ({"targets": ["Monet"]}, "targets=Monet: no such choice"),
        ({"targets": ["Seed_Images"]}, "targets=Seed_Images: no such choice"),
        ({"fid_images": [0]}, "fid_images=0: expected a number from 1 to 20"),
        ({"fid_images": [21]}, "fid_images=21: expected a number from 1 to 20"),
        ({"precision": "float8"}, "precision=float8: no such choice; did you mean float"),
        ({"format": "../png"}, r"format=\.\./png: no such choice"),
        ({"fid_extractor": "vgg"}, "fid_extractor=vgg: no such choice"),
        ({"noise": "grid"}, "noise=grid: no such choice; choose from cell"),
        ({"scheduler": "lms"}, "scheduler=lms: no such choice; choose from ddim"),
        ({"template": "An image in {theme} style."}, "template=An image .*expected a text with {object} and"),
        ({"template": "{object} {theme} {seed}"}, "and no other braces"),
        ({"template": "{object} {theme!r}"}, "and no other braces"),
        ({"template": "{object} {theme"}, "and no other braces"),
        ({"photo": True}, "photo is True; expected str"),
        ({"photo_guidance": -1.0}, "photo_guidance=-1"),
        ({"name": "../own"}, r"name=\.\./own"),
    ],
)
def test_refusals_name_file_and_field_in_one_sentence(load, changes, message):
    with pytest.raises(UserError, match=message) as error:
        load(**changes)
    assert "own.yaml: " in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_protocol(tmp_path):
    with pytest.raises(UserError, match="--protocol canvvas: no such protocol; did you mean canvas"):
        protocol.load("canvvas")
    for text in ("- Rust\n", "themes: [Rust\n", "size: ${gone}\n"):
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(UserError, match=r"own\.yaml: .*(holds no settings|not a readable YAML)") as error:
            protocol.load(tmp_path / "own.yaml")
        assert "\n" not in str(error.value)


def test_manifests():
    p = protocol.load("mini")
    content = json.loads(json.dumps(asdict(p) | {"hash": p.hash}))
    assert protocol.from_manifest(content, "m") == p
    later = ("photos", "photo_guidance", "photo_in_ira")
    older = {key: value for key, value in content.items() if key not in later}
    assert protocol.from_manifest(older, "m") == p
    with pytest.raises(UserError, match=r"m: its protocol has 'shift', which this version .* does not know"):
        protocol.from_manifest(content | {"shift": 1}, "m")
    with pytest.raises(UserError, match="m: its protocol is not the one of its hash"):
        protocol.from_manifest(content | {"steps": 21}, "m")
    with pytest.raises(UserError, match="m: steps is 'many'"):
        protocol.from_manifest(content | {"steps": "many"}, "m")


def test_command_line(capsys):
    protocol.main(["mini", "everything"])
    p = protocol.load("mini")
    assert capsys.readouterr().out.split() == [*(t for t in p.themes if t != canvas.PHOTO), *p.objects]
    protocol.main(["mini", "hash"])
    assert capsys.readouterr().out.strip() == p.hash
