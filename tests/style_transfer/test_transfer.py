"""The command of a style-transfer method, with a toy network: benchmark, folders, resuming, bad input."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import canvas
from evaluation.answers import claims
from evaluation.core.errors import UserError
from evaluation.data.images import to_tensor
from evaluation.data.pictures import square
from evaluation.mini import dataset as mini
from style_transfer import protocol as protocols
from style_transfer import transfer
from style_transfer.core import images
from tests.style_transfer import toy

ROOT = Path(__file__).parents[2]
FEW = ["--styles", "Sketch", "Rust", "--objects", "Cats", "Sea"]  # 24 outputs of transfer-mini


@pytest.fixture
def weights(tmp_path):
    return toy.released(tmp_path / "weights")


@pytest.fixture
def run(weights, tmp_path, capsys):
    """Runs the toy's command; -> exit code, outputs by name, what it said."""

    def run(*flags, out="out"):
        code = 0
        try:
            toy.main(["--weights", str(weights), "--out", str(tmp_path / out), *map(str, flags)])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, outputs(tmp_path / out), said.out + said.err

    return run


def outputs(folder):
    paths = [path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def expected(content, style, size=64):
    """The toy's output on two PIL images."""
    content, style = (to_tensor(square(image, size)) for image in (content, style))
    means = (image.mean((1, 2), keepdim=True) for image in (style, content))
    change = next(means) - next(means)
    return (((content + change).clamp(0, 1) * 255).round().permute(1, 2, 0)).numpy()


# --- the benchmark ----------------------------------------------------------------------------------------


def test_shipped_protocols():
    full, published, small = (protocols.load(f"transfer{suffix}") for suffix in ("", "-published", "-mini"))
    for p in (full, published):
        count = len(p.styles) * len(p.objects) * len(p.contents) * len(p.references)
        assert count == 43_200 and p.size == 512
        assert set(p.contents) == set(canvas.TEST) and set(p.references) == set(canvas.TRAIN)
        assert canvas.PHOTO not in p.styles and list(p.styles) == sorted(p.styles)
    assert (full.format, published.format) == ("png", "jpg")
    assert list(small.styles) == mini.STYLES and list(small.objects) == mini.OBJECTS
    hashes = "9c84d6000c2ebbc7", "fdf0f26cfa2a0ced", "de08e9764dc7285b"  # that tables of results quote
    assert tuple(p.hash for p in (full, published, small)) == hashes


def test_own_protocols(own):
    path, shipped = own(), protocols.load("transfer")
    p = protocols.load(path)
    for field in fields(p):
        value = getattr(p, field.name)
        other = {"pairs": "cross", "format": "jpg", "size": 49, "name": "other"}.get(field.name)
        more = {"styles": "Rust", "objects": "Trees", "contents": 1, "references": 18}
        other = other or (*value, more.get(field.name, "sanet"))
        changed = replace(p, **{"objects": ("Cats", "Sea")} | {field.name: other})
        same = changed.hash == replace(p, objects=("Cats", "Sea")).hash
        assert same == (field.name == "name"), field.name
    for change, sentence in (
        ({"pairs": "some"}, r"own\.yaml: pairs=some: no such choice; did you mean same"),
        ({"format": "gif"}, r"own\.yaml: format=gif: no such choice; choose from png, webp, jpg"),
        ({"pairs": "cross"}, r"own\.yaml: pairs of different objects need two objects at least"),
        ({"size": "big"}, r"own\.yaml: size is 'big'; expected int"),
        ({"size": 0}, "size=0: expected a number from 8 to 4096"),
        ({"contents": [0]}, "contents=0: expected a number from 1 to 20"),
        ({"references": [1, 1]}, "references: 1 is listed twice"),
        ({"styles": []}, "styles is empty"),
        ({"styles": ["Skecth"]}, "styles=Skecth: no such choice; did you mean Sketch"),
        ({"sise": 1}, "unknown setting 'sise'; did you mean size"),
    ):
        with pytest.raises(UserError, match=sentence):
            protocols.load(own(**change))
    assert protocols.load(own(styles="all", objects="all")).styles == tuple(shipped.styles)


def test_pairs_of_different_objects():
    same = protocols.load("transfer")
    cross = replace(same, pairs="cross")
    assert {row.object for row in same.rows_of_references("Monet", "Cats")} == {"Cats"}
    used = [row for obj in cross.objects for row in cross.rows_of_references("Monet", obj)]
    assert len(set(used)) == len(used) == 20 * 18  # every style image once
    for obj in cross.objects:
        rows = cross.rows_of_references("Monet", obj)
        assert [row.index for row in rows] == list(canvas.TRAIN)
        assert len({row.object for row in rows} - {obj}) == 18
    assert cross.hash != same.hash


def test_outputs_of_the_miniature(run):
    code, made, said = run("--data", "mini", *FEW)
    assert code == 0 and not said  # not on a terminal
    assert set(made) == {
        f"{style}/{obj}_test{content}_ref{reference}.png"
        for style in ("Sketch", "Rust") for obj in ("Cats", "Sea") for content in (19, 20)
        for reference in (1, 2, 3)
    }  # fmt: skip
    wanted = expected(mini.image(canvas.PHOTO, "Sea", 20), mini.image("Rust", "Sea", 3))
    assert np.abs(pixels(made["Rust/Sea_test20_ref3.png"]) - wanted).max() <= 1


def test_every_image_is_encoded_once(run):
    run("--data", "mini", *FEW, "--batch", 4)
    network = toy.LOADED[-1]
    assert sum(network.contents) == 2 * 2  # of two objects
    assert sum(network.styles) == 2 * 2 * 3
    assert network.decoded == [4, 2] * 4


@pytest.mark.parametrize("batch", [1, 2, 3, 36])
def test_batches_change_nothing(run, batch):
    flags = ("--data", "mini", "--styles", "Sketch", "--objects", "Cats")
    whole, other = run(*flags)[1], run(*flags, "--batch", batch, out="other")[1]
    assert whole.keys() == other.keys() and len(whole) == 6
    for name in whole:
        assert np.abs(pixels(whole[name]) - pixels(other[name])).max() <= 1
    assert sum(toy.LOADED[-1].contents) == 2 and sum(toy.LOADED[-1].styles) == 3


def test_resumed_is_byte_identical(run, tmp_path):
    _, whole, _ = run("--data", "mini", *FEW, "--batch", 4)
    run("--data", "mini", *FEW, "--batch", 4, "--limit", 9, out="parts")
    assert len(outputs(tmp_path / "parts")) == 10  # two batches, of four and two, and one of four
    (tmp_path / "parts" / "Rust" / "Cats_test19_ref1.png").unlink()
    _, parts, _ = run("--data", "mini", *FEW, "--batch", 8, out="parts")  # the first batch size stays
    assert parts == whole
    run("--data", "mini", *FEW, out="parts")
    assert not toy.LOADED[-1].contents  # nothing left to do


def test_two_processes_share_the_work(run, weights, tmp_path):
    command = [sys.executable, "-m", "tests.style_transfer.toy", "--weights", weights, "--data", "mini"]
    command += [*FEW, "--batch", "2", "--out", tmp_path / "shared"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert outputs(tmp_path / "shared") == run("--data", "mini", *FEW, "--batch", 2)[1]
    assert not list((tmp_path / "shared").glob(".claim*"))


def test_what_another_process_makes_is_left_to_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".claim-Sketch_Cats_0").write_text(f"{socket.gethostname()} {os.getppid()}")
    code, made, said = run("--data", "mini", *FEW, "--batch", 4)
    assert code == 2 and len(made) == 20 and "1 batches are with other processes" in said


def test_a_batch_whose_claim_was_lost_is_left_to_who_took_it_over(run, tmp_path, monkeypatch):
    """While this process was held up: of the first batch nothing is written."""
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0)
    held, asked = claims.Claim.held, []

    def lost_at_first(claim):
        asked.append(claim.path)
        return claim.path != asked[0] and held(claim)

    monkeypatch.setattr(claims.Claim, "held", lost_at_first)
    code, made, said = run("--data", "mini", *FEW, "--batch", 4)
    assert code == 2 and len(made) == 20 and "1 batches are with other processes" in said


def test_cross_object(run):
    flags = ("--data", "mini", "--styles", "Sketch", "--objects", "Cats")
    code, made, _ = run(*flags, "--cross-object")
    assert code == 0 and set(made) == set(run(*flags, out="same")[1])
    after_cats = mini.OBJECTS[mini.OBJECTS.index("Cats") + 2]
    wanted = expected(mini.image(canvas.PHOTO, "Cats", 19), mini.image("Sketch", after_cats, 2))
    assert np.abs(pixels(made["Sketch/Cats_test19_ref2.png"]) - wanted).max() <= 1
    code, _, said = run(*flags, out="out")  # the folder holds other pairs
    assert code == 2 and "holds outputs of another protocol" in said


@pytest.fixture
def data(tmp_path):
    """A small data set of one style and object, 80 x 72 pixels."""
    random = np.random.default_rng(0)
    for theme, indices in {canvas.PHOTO: (19, 20), "Sketch": range(1, 5)}.items():
        for index in indices:
            path = canvas.image_path(tmp_path / "data", theme, "Cats", index)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(60, 200, (72, 80, 3), np.uint8)).save(path)
    return tmp_path / "data"


@pytest.fixture
def own(tmp_path):
    """A protocol file for it."""

    def own(**changes):
        content = {
            "styles": ["Sketch"], "objects": ["Cats"], "contents": [19, 20], "references": [1, 2, 3, 4],
            "pairs": "same", "size": 48, "bicubic": [], "truncated": [], "format": "png",
        } | changes  # fmt: skip
        (tmp_path / "own.yaml").write_text(json.dumps(content))
        return tmp_path / "own.yaml"

    return own


def test_data_set_on_disk(run, data, own):
    code, made, _ = run("--data", data, "--protocol", own())
    assert code == 0 and len(made) == 8
    content, style = (
        Image.open(canvas.image_path(data, *row))
        for row in ((canvas.PHOTO, "Cats", 19), ("Sketch", "Cats", 2))
    )
    wanted = expected(content, style, 48)
    assert np.abs(pixels(made["Sketch/Cats_test19_ref2.png"]) - wanted).max() <= 1


def test_a_protocol_names_the_methods_it_treats_otherwise(run, data, own):
    plain = run("--data", data, "--protocol", own())[1]
    for change in ({"bicubic": ["toy"]}, {"truncated": ["toy"]}, {"bicubic": ["sanet"]}):
        other = run("--data", data, "--protocol", own(**change), out=str(change))[1]
        assert (other == plain) == (change == {"bicubic": ["sanet"]})
    jpg = run("--data", data, "--protocol", own(format="jpg"), out="jpg")[1]
    assert len(jpg) == 8 and all(name.endswith(".jpg") for name in jpg)


def test_damaged_and_missing_images_are_listed_and_the_rest_is_made(run, data, own):
    canvas.image_path(data, "Sketch", "Cats", 1).write_bytes(b"damaged")
    canvas.image_path(data, "Sketch", "Cats", 3).unlink()
    for _ in range(2):  # a second run tries again and says it again
        code, made, said = run("--data", data, "--protocol", own())
        assert code == 2 and len(made) == 4 and {name[-5] for name in made} == {"2", "4"}
        assert "2 inputs could not be used" in said
        assert "Cats/1.jpg: not a readable image" in said and "Cats/3.jpg: is missing; repair" in said
    canvas.image_path(data, "Sketch", "Cats", 2).rename(canvas.image_path(data, "Sketch", "Cats", 3))
    canvas.image_path(data, canvas.PHOTO, "Cats", 20).write_bytes(b"")
    code, made, said = run("--data", data, "--protocol", own(), out="others")
    assert code == 2 and set(made) == {f"Sketch/Cats_test19_ref{n}.png" for n in (3, 4)}


# --- pictures of one's own --------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Folders of contents and styles of all sizes."""
    random = np.random.default_rng(1)
    sizes = {"content": [(50, 70), (31, 31), (50, 70), (1, 1)], "style": [(40, 40), (90, 33), (40, 40)]}
    for folder, those in sizes.items():
        (tmp_path / folder).mkdir()
        for number, (width, height) in enumerate(those):
            values = random.integers(60, 200, (height, width, 3), np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{folder[0]}{number}.png")
    return tmp_path / "content", tmp_path / "style"


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_folders_at_any_size(run, pictures, batch):
    content, style = pictures
    code, made, said = run("--content", content, "--style", style, "--batch", batch)
    assert code == 0 and not said
    assert set(made) == {f"s{s}/c{c}.png" for s in range(3) for c in range(4)}
    for c in range(4):
        source = Image.open(content / f"c{c}.png")
        assert pixels(made[f"s0/c{c}.png"]).shape[:2] == source.size[::-1]
    network = toy.LOADED[-1]
    assert sum(network.contents) == 4 and sum(network.styles) == 3
    assert network.sides == {(40, 40), (33, 90)}  # mirroring would change what is painted after
    for c, s in ((0, 0), (2, 1), (1, 2)):  # as each pair alone
        alone = run("--content", content / f"c{c}.png", "--style", style / f"s{s}.png", out=f"{c}{s}")[1]
        assert np.abs(pixels(alone[f"s{s}/c{c}.png"]) - pixels(made[f"s{s}/c{c}.png"])).max() <= 1


@pytest.mark.parametrize("batch, of_styles", [(4, 40), (1, 40), (30, 40)])
def test_contents_are_encoded_once_and_styles_once_for_eight_of_them(run, tmp_path, batch, of_styles):
    random = np.random.default_rng(2)
    for folder, count in (("content", 26), ("style", 10)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            values = random.integers(60, 200, (32, 32, 3), np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{number:02}.png")
    flags = ("--content", tmp_path / "content", "--style", tmp_path / "style", "--batch", batch)
    assert len(run(*flags)[1]) == 260
    network = toy.LOADED[-1]
    assert sum(network.contents) == 26 and sum(network.styles) == of_styles
    assert max(network.decoded) <= batch


def test_outputs_are_written_in_the_background_under_their_claim(run, tmp_path, monkeypatch):
    """While one block's are, the next is at work; only then is the claim let go of."""
    seen, save, decode = [], images.save, toy.Toy.decode

    def slow(pixels, path):
        time.sleep(0.2)
        seen.append(("written", sorted(p.name for p in (tmp_path / "out").glob(".claim*"))))
        save(pixels, path)

    def noted(network, content, style):
        seen.append(("decoded", None))
        return decode(network, content, style)

    monkeypatch.setattr(images, "save", slow)
    monkeypatch.setattr(toy.Toy, "decode", noted)
    flags = ("--data", "mini", "--styles", "Sketch", "--objects", "Cats", "--batch", 2)
    assert len(run(*flags)[1]) == 6
    assert [what for what, _ in seen[:4]] == ["decoded", "decoded", "written", "written"]
    assert ".claim-Sketch_Cats_0" in seen[2][1] and ".claim-Sketch_Cats_2" in seen[-1][1]
    assert not list((tmp_path / "out").glob(".claim*"))


def test_an_output_that_cannot_be_written_is_no_success(run, monkeypatch):
    def full(pixels, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(images, "save", full)
    code, made, said = run("--data", "mini", "--styles", "Sketch", "--objects", "Cats")
    assert code == 2 and not made and "the disk is full" in said


def test_one_image_from_python():
    """Paths, PIL images and tensors; the output is what the network makes of the two as they are."""
    photo, art = (
        mini.image(canvas.PHOTO, "Cats", 19).resize((61, 50)),
        mini.image("Rust", "Sea", 3).resize((45, 70)),
    )
    network = transfer.load("sanet", "checkpoints/mini/style_transfer/sanet", "cpu")
    made = transfer.stylise(network, photo, to_tensor(art))
    assert made.size == photo.size
    padded = images.pad(to_tensor(photo), 16)[None]
    wanted = network.stylise(padded, to_tensor(art)[None])[0, :, :50, :61].clamp(0, 1) * 255
    assert np.abs(np.asarray(made).astype(float) - wanted.permute(1, 2, 0).numpy()).max() <= 0.51
    weaker = transfer.load("sanet", "checkpoints/mini/style_transfer/sanet", "cpu", strength=0.5)
    assert transfer.stylise(weaker, photo, art).tobytes() != made.tobytes()
    with pytest.raises(UserError, match="sannet: no such method; did you mean sanet"):
        transfer.load("sannet", ".")
    with pytest.raises(UserError, match="strength=2: expected a number from 0 to 1"):
        transfer.load("sanet", ".", strength=2)
    with pytest.raises(UserError, match=r"an image of shape \[1, 3, 8, 8\]: expected \[3,H,W\]"):
        transfer.stylise(network, padded[..., :8, :8], art)


def test_one_pair_and_a_limit_of_size(run, pictures):
    content, style = pictures
    _, made, _ = run("--content", content / "c0.png", "--style", style / "s1.png", "--max-side", 35)
    assert list(made) == ["s1/c0.png"] and pixels(made["s1/c0.png"]).shape == (35, 25, 3)


def test_pictures_of_one_name_in_two_formats(run, pictures):
    content, style = pictures
    Image.open(content / "c0.png").save(content / "c0.jpg")
    _, made, _ = run("--content", content, "--style", style / "s1.png")
    assert {"s1/c0.png.png", "s1/c0.jpg.png", "s1/c1.png"} < set(made) and len(made) == 5


def test_bad_pictures_are_listed_and_the_rest_is_made(run, pictures):
    content, style = pictures
    (content / "bad.jpg").write_bytes(b"\xff\xd8 cut")
    Image.new("RGB", (40, 40), (255, 10, 10)).save(style / "red.png")
    Image.new("RGB", (40, 40), (0, 10, 10)).save(style / "without_red.png")
    Image.new("RGB", (40, 40), (10, 10, 255)).save(style / "blue.png")
    code, made, said = run("--content", content, "--style", style, "--batch", 30)
    assert code == 2
    assert set(made) == {f"s{s}/c{c}.png" for s in range(3) for c in range(4)}
    assert "10 inputs could not be used, all else is done" in said
    assert "bad.jpg: not a readable image" in said
    assert "c0.png with " in said and "red.png: too red for the toy" in said
    assert "blue.png: not enough memory; give a smaller --batch or --max-side" in said
    assert "without_red.png: the network's output is not finite" in said


def test_resumed_folders(run, pictures, tmp_path):
    content, style = pictures
    whole = run("--content", content, "--style", style, "--batch", 2)[1]
    flags = ("--content", content, "--style", style, "--batch", 2)
    run(*flags, "--limit", 3, out="parts")
    assert len(outputs(tmp_path / "parts")) == 4
    assert run(*flags, out="parts")[1] == whole


# --- options and refusals ---------------------------------------------------------------------------------


def test_options(run, pictures):
    content, style = pictures
    flags = ("--content", content / "c0.png", "--style", style / "s0.png")
    source = np.asarray(Image.open(content / "c0.png")).astype(int)
    none = run(*flags, "--strength", 0, out="none")[1]["s0/c0.png"]
    assert (pixels(none) == source).all()
    half = run(*flags, "strength=0.5", out="half")[1]["s0/c0.png"]
    twice = run(*flags, "strength=0.5", "steps=2", out="twice")[1]["s0/c0.png"]
    full = run(*flags)[1]["s0/c0.png"]
    shift = [(pixels(made) - source).mean() for made in (half, twice, full)]
    assert shift[0] == pytest.approx(shift[2] / 2, abs=0.3) and shift[1] == pytest.approx(
        shift[2] * 3 / 4, abs=0.3
    )
    shifted = run(*flags, "shift=0.1", out="shifted")[1]["s0/c0.png"]
    assert (pixels(shifted) - pixels(full)).mean() == pytest.approx(25.5, abs=1)
    bf16 = run(*flags, "--dtype", "bfloat16", "--channels-last", out="bf16")[1]["s0/c0.png"]
    assert np.abs(pixels(bf16) - pixels(full)).max() <= 3


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--data", "mini", "--styles", "Skech"], "--styles Skech: not in the protocol; did you mean Sketch"),
        (["--data", "mini", "--objects", "Cat"], "--objects Cat: not in the protocol; did you mean Cats"),
        (["--data", "mini", "--protocol", "transfer-min"], "no such protocol; did you mean transfer-mini"),
        (["--data", "mini", "--protocol", "canvas"], "--protocol canvas: no such protocol"),
        (
            ["--data", "evaluation"],
            "--data evaluation: 1 of 1 images are missing, first evaluation/Seed_Images/Architectures/19.jpg",
        ),
        (["--data", "mini", "--content", "a"], "--data and --content: name a data set, or"),
        (["--content", "README.md"], "name --content and --style, or --data"),
        ([], "name --content and --style, or --data"),
        (["--content", "nowhere", "--style", "README.md"], "--content nowhere: no such file or folder"),
        (
            ["--content", "README.md", "--style", "README.md", "--styles", "Sketch"],
            "--styles: is for the bench",
        ),
        (["--content", "README.md", "--style", "README.md"], "README.md: not a readable image"),
        (["--data", "mini", "strenght=1"], "no setting is called 'strenght'; did you mean strength"),
        (["--data", "mini", "strength=a"], "strength is 1.0 by default, so 'a' does not fit"),
        (["--data", "mini", "--strength", "2"], "argument --strength: 2: expected a number, from 0 to 1"),
        (["--data", "mini", "--limit", "0"], "argument --limit: 0: expected a whole number, 1 or more"),
    ],
)
def test_refusals(run, flags, sentence, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, made, said = run(*flags)
    assert code == 2 and not made and sentence in said


def test_weights(run, weights, tmp_path, monkeypatch):
    file = weights / "toy_iter_100.pth"
    (weights / "deep").mkdir()
    file.rename(weights / "deep" / file.name)
    assert run("--data", "mini", *FEW)[0] == 0  # the folders of the release may be kept
    (weights / "deep" / file.name).rename(weights / "toy_iter_7.pth")
    assert run("--data", "mini", *FEW)[0] == 0  # so may another training step
    (weights / "toy_iter_8.pth").write_bytes(b"")
    code, _, said = run("--data", "mini", *FEW)
    assert code == 2 and "toy_iter_7.pth or" in said and "toy_iter_8.pth? leave one" in said
    for path in weights.glob("*.pth"):
        path.unlink()
    code, _, said = run("--data", "mini", *FEW)
    assert code == 2 and f"--weights {weights}: toy_iter_100.pth is missing" in said
    weights.joinpath("deep").rmdir()
    weights.rmdir()
    code, _, said = run("--data", "mini", *FEW)
    assert code == 2 and f"--weights {weights}: no such folder" in said


def test_manifest(run, weights, pictures, tmp_path):
    run("--data", "mini", *FEW)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["protocol"]["hash"] == protocols.load("transfer-mini").hash
    assert manifest["method"] == "toy" and manifest["options"] == {"shift": 0.0, "strength": 1.0, "steps": 1}
    before = outputs(tmp_path / "out")
    for flags, key in (
        (["--protocol", "transfer", *FEW], "protocol"),
        ([*FEW, "strength=0.5"], "options"),
        ([*FEW, "--dtype", "bfloat16"], "dtype"),
        ([*FEW, "--channels-last"], "channels_last"),
    ):
        code, made, said = run("--data", "mini", *flags)
        assert code == 2 and made == before and f"holds outputs of another {key}" in said
    code, _, said = run("--data", "mini:1", *FEW)
    assert code == 2 and "another data" in said
    content, style = pictures
    code, _, said = run("--content", content, "--style", style)
    assert code == 2 and "another protocol" in said
    assert run("--content", content, "--style", style, out="painted")[0] == 0
    code, _, said = run("--content", content / "c0.png", "--style", style, out="painted")
    assert code == 2 and "another content" in said
    assert run("--data", "mini", "--styles", "Winter", "--objects", "Cats")[0] == 0  # more of the same
    toy.released(weights, scale=0.9)
    code, made, said = run("--data", "mini", *FEW)
    assert code == 2 and "holds outputs of another weights" in said
