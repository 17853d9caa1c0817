"""Released files: what is read, and the one sentence that says what is wrong with a file."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.core import vgg, weights

RELEASED = {"net_iter_500000.pth": "net", "latest_net_head.pth": "head"}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = nn.Linear(2, 3), nn.Linear(3, 1)


@pytest.fixture
def files(tmp_path):
    torch.manual_seed(0)
    made = Network()
    for name, part in RELEASED.items():
        torch.save(made.get_submodule(part).state_dict(), tmp_path / name)
    return {name: tmp_path / name for name in RELEASED}


def load(files):
    return weights.fill(Network(), weights.read(files, RELEASED, "Method"), RELEASED)


def says(files, *words):
    with pytest.raises(UserError) as error:
        load(files)
    message = str(error.value)
    assert all(word in message for word in ("Method", *words)), message
    assert "\n" not in message and len(message) < 400


def test_fills_every_part(files):
    network = load(files)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    for name, part in RELEASED.items():
        for key, tensor in torch.load(files[name], weights_only=True).items():
            assert torch.equal(network.get_submodule(part).state_dict()[key], tensor)


def test_forms(files):
    """Paths as text, state dicts, nested ones, prefixes of parallel training, half precision, other steps."""
    expected = load(files).state_dict()
    states = {name: torch.load(path, weights_only=True) for name, path in files.items()}
    net, head = RELEASED
    for given in (
        {name: str(path) for name, path in files.items()},
        states,
        {net: {"iter": 7, "state_dict": states[net], "optimizer": {}}, head: states[head]},
        {net: {f"module.{key}": tensor for key, tensor in states[net].items()}, head: states[head]},
        {"models/net_iter_160000.pth": states[net], "5_net_head.pth": states[head], "other.pth": "nowhere"},
    ):
        for key, tensor in load(given).state_dict().items():
            assert torch.equal(tensor, expected[key])
    half = load({net: {key: tensor.half() for key, tensor in states[net].items()}, head: states[head]})
    assert half.net.weight.dtype == torch.float32


class Wrapped(nn.Module):
    """Of an added method, with a part whose name parallel training has taken."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 3)


@pytest.mark.parametrize("around", [None, "generator", "net"])
def test_files_of_added_methods(around, tmp_path):
    """The whole network in one file, perhaps inside a dict of the author's own."""
    made, other = Wrapped(), Wrapped()
    state = made.state_dict()
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({around: state, "epoch": 3, "optimizer": optimizer} if around else state, tmp_path / "a.pth")
    found = weights.read({"a.pth": tmp_path / "a.pth"}, ["a.pth"], "Method")
    weights.fill(other, found, {"a.pth": ""})
    assert all(torch.equal(state[key], tensor) for key, tensor in other.state_dict().items())
    two = {"generator": state, "ema": state, "optimizer": optimizer}  # which is meant?
    with pytest.raises(UserError, match="does not fit Method"):
        weights.fill(Wrapped(), weights.read({"a.pth": two}, ["a.pth"], "Method"), {"a.pth": ""})


def test_the_callers_tensors_stay_theirs(files):
    states = {name: torch.load(path, weights_only=True) for name, path in files.items()}
    before = states["latest_net_head.pth"]["bias"].clone()
    load(states).head.bias.add_(1)
    assert torch.equal(states["latest_net_head.pth"]["bias"], before)


def test_missing(files):
    net, head = RELEASED
    says({net: files[net]}, head)
    says({}, net)
    says(files | {net: files[net].parent / "absent.pth"}, "absent.pth", net)
    says(files | {net: files[net].parent}, str(files[net].parent), net)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", b"an error page\n", b"PK\x03\x04broken", "cut", "code", "list"],
)
def test_no_checkpoint(files, content):
    net = files["net_iter_500000.pth"]
    if content == "cut":
        net.write_bytes(net.read_bytes()[:700])
    elif content == "code":
        torch.save({"weight": Fraction(1, 2)}, net)
    elif content == "list":
        torch.save([torch.ones(2)], net)
    else:
        net.write_bytes(content)
    says(files, str(net))


def test_other_weights(files):
    net, head = RELEASED
    state = torch.load(files[net], weights_only=True)
    says({net: files[head], head: files[net]}, str(files[head]), "of another shape")
    says(files | {net: {"weight": state["weight"]}}, net, "1 missing ('bias')")
    says(files | {net: state | {"extra": torch.ones(1)}}, net, "1 unknown ('extra')")
    says(files | {net: state | {"bias": torch.ones(4)}}, net, "1 of another shape ('bias')")


def test_widths_are_read_off(files):
    narrow = vgg.Encoder((2, 3, 4, 5, 6)).state_dict()
    assert vgg.widths(weights.Weights(narrow, "f.pth", "Method")) == (2, 3, 4, 5, 6)
    del narrow["29.weight"]
    for broken in (narrow, narrow | {"29.weight": torch.tensor(1.0)}):
        with pytest.raises(UserError, match=r"f\.pth.*Method.*29\.weight"):
            vgg.widths(weights.Weights(broken, "f.pth", "Method"))
