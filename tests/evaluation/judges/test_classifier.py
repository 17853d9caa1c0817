import itertools
import json
import pickle

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from evaluation import canvas, protocol, train_classifier
from evaluation.core import owner
from evaluation.core.errors import UserError
from evaluation.judges import training_data
from evaluation.judges.classifier import ALL_THEMES, FIELDS, Classifier, load_classifier, metadata

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


def tiny(task="object", labels=("Cats", "Dogs"), **arguments) -> Classifier:
    torch.manual_seed(0)
    return Classifier(task, labels, "vit_tiny_patch16_224", TINY | arguments, mean=0.4, std=0.3).eval()


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_normalises_and_splits_into_features_and_head(images):
    model = tiny()
    expected = model.vit(transforms.functional.normalize(images, [0.4] * 3, [0.3] * 3))
    torch.testing.assert_close(model(images), expected)
    features = model.features(images)
    assert features.shape == (3, 32)
    torch.testing.assert_close(features @ model.vit.head.weight.T + model.vit.head.bias, expected)


def test_preprocess_resizes_both_sides():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])(image)
    torch.testing.assert_close(tiny().preprocess(image) / 255, expected)
    assert tiny().preprocess(image.convert("L")).shape == (3, 16, 16)


@pytest.mark.parametrize("stem", [{}, {"embed_layer": "conv", "class_token": False, "global_pool": "avg"}])
@pytest.mark.parametrize("half", [False, True])
def test_a_saved_file_gives_the_same_answers(tmp_path, images, stem, half):
    path, model = tmp_path / "a.safetensors", tiny(**stem)
    model.save(path, half=half, accuracy={"total": 0.5})
    loaded = load_classifier(path, "object")
    assert (loaded.labels, loaded.task, loaded.size) == (["Cats", "Dogs"], "object", 16)
    assert not loaded.training and metadata(path)["accuracy"] == {"total": 0.5}
    tolerance = 5e-3 if half else 1e-6
    torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=tolerance)


def published(path, classes, width=128, heads=2, wrapper="model_state_dict"):
    vit = timm.create_model(
        "vit_base_patch16_224", num_classes=classes, img_size=16, patch_size=4, embed_dim=width, depth=3,
        num_heads=heads, mlp_ratio=2,
    ).eval()  # fmt: skip
    torch.save({wrapper: vit.state_dict(), "epoch": 3}, path)
    return vit


@pytest.mark.parametrize(
    ("classes", "task", "labels"),
    [(51, "style", canvas.THEMES), (61, "style", ALL_THEMES), (20, "object", canvas.OBJECTS)],
)
def test_published_files_are_understood_from_their_shapes(tmp_path, images, classes, task, labels):
    vit = published(tmp_path / "a.pth", classes)
    loaded = load_classifier(tmp_path / "a.pth", task)
    assert loaded.labels == labels and loaded.size == 16
    torch.testing.assert_close(loaded(images), vit(images * 2 - 1))


def test_head_count_can_be_given(tmp_path, images):
    vit = published(tmp_path / "a.pth", 2, heads=4)
    loaded = load_classifier(tmp_path / "a.pth", "style", ["Sketch", "Rust"], arguments={"num_heads": 4})
    torch.testing.assert_close(loaded(images), vit(images * 2 - 1))


def test_order_of_the_61_themes():
    assert [ALL_THEMES.index(name) for name in ("Palette_Knife", "Magic_Cube", "Seed_Images")] == [30, 31, 47]
    assert len(ALL_THEMES) == 61


class Malice:
    def __reduce__(self):
        return print, ("this code must not run",)


def test_unfit_files_are_refused_in_one_sentence(tmp_path, capsys):
    ours, cut, text = (tmp_path / f"{name}.safetensors" for name in ("ours", "cut", "text"))
    tiny().save(ours)
    cut.write_bytes(ours.read_bytes()[:2000])
    text.write_text("no weights")
    published(tmp_path / "style.pth", 51)
    published(tmp_path / "nested.pth", 51, wrapper="weights")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model_state_dict": Malice()}, protocol=2))
    torch.save({"model_state_dict": {"head.weight": torch.zeros(51, 4)}}, tmp_path / "other.pth")
    for name, task, labels, reason in (
        ("ours.safetensors", "style", None, "object task; one of the style task was expected"),
        ("ours.safetensors", "object", ["Cats", "Sea"], "Cats, Sea"),
        ("cut.safetensors", "object", None, "damaged, or not a file of weights"),
        ("text.safetensors", "object", None, "damaged, or not a file of weights"),
        ("none.safetensors", "object", None, "no such file"),
        ("style.pth", "object", None, "has 51 classes; one of the object task with 20 was expected"),
        ("style.pth", "style", ["Sketch"], "has 51 classes; one of the style task with 1 was expected"),
        ("nested.pth", "style", None, "not a classifier"),
        ("evil.pth", "style", None, "a pickle that cannot be read safely"),
        ("other.pth", "style", None, "not a classifier"),
    ):
        with pytest.raises(UserError) as error:
            load_classifier(tmp_path / name, task, labels)
        message = str(error.value)
        assert message.startswith(str(tmp_path / name)) and reason in message and "\n" not in message
    assert "must not run" not in capsys.readouterr().out


def test_every_batch_of_a_pass_is_another(tmp_path):
    first = list(itertools.islice(training_data.order(10, 3, seed=0), 7))
    assert len({i for batch in first[:3] for i in batch}) == 9
    assert first[:3] != first[3:6]
    for start in range(1, 6):
        resumed = training_data.order(10, 3, seed=0, start=start)
        assert list(itertools.islice(resumed, 7 - start)) == first[start:]


def test_augmentation(images):
    chance = training_data.generator(0, 0)
    same = training_data.augment(images, False, 0, 0, 0, chance)
    torch.testing.assert_close(same, images)
    many = images[:1].expand(40, -1, -1, -1)
    mirrored = training_data.augment(many, True, 0, 0, 0, chance)
    flipped = [torch.allclose(image, images[0].flip(2), atol=1e-5) for image in mirrored]
    kept = [torch.allclose(image, images[0], atol=1e-5) for image in mirrored]
    assert sum(flipped) + sum(kept) == 40 and 8 < sum(flipped) < 32
    ramp = torch.linspace(0, 1, 64).expand(40, 3, 64, 64)
    moved = training_data.augment(ramp, False, 0.1, 0, 0, chance)[:, 0, 32, 32] - ramp[0, 0, 32, 32]
    assert 0.05 < moved.abs().max() <= 0.105
    noise = torch.rand(40, 3, 64, 64, generator=chance)
    kept = training_data.augment(noise, False, 0, 0, 0.9, chance).var((1, 2, 3)) / noise.var((1, 2, 3))
    assert kept.min() < 0.2 and 8 < (kept > 0.9999).sum() < 32  # half of the images stay sharp


COLOURS = {("Rust", "Cats"): (200, 60, 20), ("Rust", "Dogs"): (120, 30, 60)}
COLOURS |= {("Winter", "Cats"): (60, 120, 220), ("Winter", "Dogs"): (20, 40, 130)}


@pytest.fixture
def command(tmp_path):
    """-> run(out, *more arguments): trains on noisy squares of one colour for each theme and object."""
    noise = np.random.default_rng(0)
    for (theme, obj), colour in COLOURS.items():
        for index in range(1, 21):
            pixels = np.clip(colour + noise.normal(0, 20, (12, 18, 3)), 0, 255).astype(np.uint8)
            path = canvas.image_path(tmp_path / "data", theme, obj, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    shape = json.dumps(TINY).replace('"', "")

    def run(out, *more):
        settings = [
            f"arguments={shape}",
            "themes=[Rust,Winter]",
            "objects=[Cats,Dogs]",
            "batch=8",
            "workers=0",
        ]
        settings += ["steps=40", "warmup=4", "lr=3e-3", "ema=0.8", "checkpoint_every=10", *more]
        flags = [
            "--task",
            "object",
            "--data",
            str(tmp_path / "data"),
            "--out",
            str(tmp_path / out),
            "--device",
            "cpu",
        ]
        train_classifier.main([*flags, *settings])
        return load_classifier(tmp_path / out, "object")

    return run


def test_learns_and_reports_what_it_never_trained_on(command, tmp_path, monkeypatch, capsys):
    used = []

    class Spy(train_classifier.CanvasImages):
        def __init__(self, root, cells, indices):
            used.append(list(indices))
            super().__init__(root, cells, indices)

    monkeypatch.setattr(train_classifier, "CanvasImages", Spy)
    command("a.safetensors")
    assert used == [[19, 20], list(range(1, 19))]
    report = metadata(tmp_path / "a.safetensors")["accuracy"]
    assert report["images"] == 8 and report["total"] > 0.8
    assert set(report["themes"]) == {"Rust", "Winter"} and set(report["objects"]) == {"Cats", "Dogs"}
    assert f"{report['total']:.1%} of 8 held-out images" in capsys.readouterr().out
    command("a.safetensors")
    assert "already trained" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command("a.safetensors", "steps=41")
    assert "other settings or data" in capsys.readouterr().err


def test_a_stopped_command_continues(command, tmp_path, monkeypatch):
    whole = command(
        "whole.safetensors", "half=false", "cache_gb=0"
    ).vit.state_dict()  # decoded anew for each batch
    rate = train_classifier.rate

    def stop(step, *rest):
        if step == 25:
            raise KeyboardInterrupt
        return rate(step, *rest)

    monkeypatch.setattr(train_classifier, "rate", stop)
    with pytest.raises(SystemExit):
        command("halves.safetensors", "half=false")
    assert not (tmp_path / "halves.safetensors").exists()
    monkeypatch.setattr(train_classifier, "rate", rate)
    steps = []
    monkeypatch.setattr(train_classifier, "rate", lambda step, *rest: steps.append(step) or rate(step, *rest))
    halves = command("halves.safetensors", "half=false").vit.state_dict()
    assert steps == list(range(20, 40)) and not (tmp_path / "halves.checkpoint").exists()
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-5)


def test_two_do_not_write_one_file(command, tmp_path, capsys):
    out = tmp_path / "judge.safetensors"
    with owner.alone_at(out), pytest.raises(SystemExit) as stop:
        command(out)
    assert stop.value.code == 2
    assert f"--out {out}: another process makes this file; wait" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_rate_warms_up_and_ends_at_zero():
    rates = [train_classifier.rate(step, 100, 2.0, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[100] == pytest.approx(0)


def test_starts_from_weights_under_a_new_head(tmp_path):
    published(tmp_path / "init.pth", 7, width=32)
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2}
    settings = {
        "seed": 0,
        "objects": ["Cats", "Dogs"],
        "model": "vit_base_patch16_224",
        "mean": 0.5,
        "std": 0.5,
    }
    settings |= {"arguments": shape, "init": str(tmp_path / "init.pth")}
    weights = train_classifier.new_classifier("object", settings).vit.state_dict()
    stored = torch.load(tmp_path / "init.pth", weights_only=True)["model_state_dict"]
    assert all(torch.equal(weights[k], v) for k, v in stored.items() if not k.startswith("head."))
    with pytest.raises(UserError, match=r"init=.*do not match"):
        train_classifier.new_classifier("object", settings | {"arguments": shape | {"depth": 2}})


@pytest.mark.parametrize("name", ["mini", "vit_large"])
@pytest.mark.parametrize("task", ["style", "object"])
def test_shipped_settings(name, task):
    settings = train_classifier.read_settings(name, task, ["lr=0.5"])
    assert settings["lr"] == 0.5 and isinstance(settings["steps"], int)
    assert len(settings["themes"]) == {"mini": 11, "vit_large": 51}[name]
    near = train_classifier.read_settings(name, task, ["themes=near"])["themes"]
    assert near == list(protocol.load("mini-near").themes)
    with pytest.raises(UserError, match="did you mean steps"):
        train_classifier.read_settings(name, task, ["step=3"])
    with pytest.raises(UserError, match="themes=far: expected mini, near, all, or a list of names"):
        train_classifier.read_settings(name, task, ["themes=far"])


def test_files_of_parallel_training_and_bare_ones(tmp_path, images):
    vit = published(tmp_path / "a.pth", 51)
    state = vit.state_dict()
    parallel = {f"module.{name}": value for name, value in state.items()}
    for name, content in (("bare", state), ("parallel", {"model_state_dict": parallel}), ("state", parallel)):
        torch.save(content, tmp_path / f"{name}.bin")
        torch.testing.assert_close(
            load_classifier(tmp_path / f"{name}.bin", "style")(images), vit(images * 2 - 1)
        )
    tiny().save(tmp_path / "ours.safetensors")
    (tmp_path / "ours.safetensors").rename(tmp_path / "renamed.pth")  # told by what it is
    assert load_classifier(tmp_path / "renamed.pth", "object").labels == ["Cats", "Dogs"]


@pytest.mark.parametrize(
    "key, value",
    [
        ("labels", None),
        ("labels", [1, 2]),
        ("labels", ["Cats"]),
        ("labels", "Cats"),
        ("task", "colour"),
        ("arguments", []),
        ("arguments", {"img_size": -8}),
        ("mean", "x"),
        ("std", 0),
        ("std", float("nan")),
        ("model", "hf-hub:somebody/something"),  # timm would download it
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path, key, value):
    model = tiny()
    about = {name: getattr(model, name) for name in FIELDS} | {key: value}
    path = tmp_path / "a.safetensors"
    save_file(model.vit.state_dict(), path, {"classifier": json.dumps(about)})
    with pytest.raises(UserError, match=str(path)):
        load_classifier(path, "object")


def test_a_judge_with_nan_is_refused_by_its_tensors_name(tmp_path):
    model = tiny()
    model.vit.head.bias.data[1] = float("nan")
    with pytest.raises(UserError, match=r"head\.bias holds NaN"):
        model.save(tmp_path / "a.safetensors")
    torch.save(model.vit.state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: its tensor head\.bias holds NaN"):
        load_classifier(tmp_path / "a.pth", "object", ["Cats", "Dogs"])


REFUSED = """
    steps=0 steps=2.5 batch=0 lr=-1 lr=nan warmup=-1 ema=2 label_smoothing=2 shift=-1 blur=nan std=0 clip=0
    flip=maybe checkpoint_every=0 workers=-1 seed=-1 precision=foo themes=[Foo] objects=[Cats,Cats] themes=[]
    cache_gb=-1 arguments=3
"""


@pytest.mark.parametrize("text", REFUSED.split())
def test_a_setting_out_of_its_limits(text):
    with pytest.raises(UserError, match=text.partition("=")[0]):
        train_classifier.read_settings("mini", "style", [text])


@pytest.mark.parametrize(
    "change, named",
    [
        ({"mean": None}, "mean"),
        ({"lr": "fast"}, "lr"),
        ({"batch": 2.5}, "batch"),
        ({"stpes": 1}, "did you mean steps"),
    ],
)
def test_a_file_of_settings_is_checked(tmp_path, change, named):
    settings = (
        OmegaConf.to_container(OmegaConf.load(train_classifier.FOLDER / "classifier_mini.yaml")) | change
    )
    OmegaConf.save(settings, tmp_path / "own.yaml")
    with pytest.raises(UserError, match=rf"own\.yaml: .*{named}"):
        train_classifier.read_settings(str(tmp_path / "own.yaml"), "style")
    (tmp_path / "own.yaml").write_text("a: [b")
    with pytest.raises(UserError, match=r"own\.yaml: not a readable YAML file"):
        train_classifier.read_settings(str(tmp_path / "own.yaml"), "style")


def test_a_cut_checkpoint_is_named_and_one_that_is_left_is_removed(command, tmp_path, capsys):
    (tmp_path / "a.checkpoint").write_bytes(b"PK\3\4damaged")
    with pytest.raises(SystemExit):
        command("a.safetensors", "steps=2")
    assert "a.checkpoint: damaged" in capsys.readouterr().err
    (tmp_path / "a.checkpoint").unlink()
    command("a.safetensors", "steps=2")
    (tmp_path / "a.checkpoint").write_bytes(b"of a command that was killed at its end")
    command("a.safetensors", "steps=2")
    assert not (tmp_path / "a.checkpoint").exists()


def test_a_loss_that_is_no_number_ends_it(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("a.safetensors", "lr=100", "weight_decay=100", "warmup=0")
    assert "is nan" in (said := capsys.readouterr().err) or "holds NaN" in said
    assert not (tmp_path / "a.safetensors").exists()
