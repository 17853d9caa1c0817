"""SANet, MAST, MCCNet, AdaAttN and ArtFlow, narrow: one interface, and formulas by a second derivation."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evaluation.core.errors import UserError
from style_transfer.adaattn import model as adaattn
from style_transfer.artflow import model as artflow
from style_transfer.artflow.flow import InvertibleConvolution
from style_transfer.core.blocks import mean_std, mvn
from style_transfer.core.networks import with_options
from style_transfer.mast import align
from style_transfer.mast import model as mast
from style_transfer.mccnet import model as mccnet
from style_transfer.sanet import model as sanet

WIDTHS = (8, 12, 16, 24, 24)
MODULES = {module.__name__.split(".")[1]: module for module in (sanet, mast, mccnet, adaattn, artflow)}
UNUSED = {"module.MCCN.h.weight", "module.MCCN.h.bias"}  # parameters that nothing depends on


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def build(method):
    """A narrow network with weights that make its output depend on the style."""
    torch.manual_seed(0)
    if method == "artflow":
        network = artflow.ArtFlow(blocks=2, flows=3, hidden=6)
        network.initialise(images(2, 3, 32, 32, seed=9))
        for flow in (flow for block in network.blocks for flow in block.flows):
            torch.nn.init.normal_(flow.coupling.net[4].conv.weight, std=0.1)
        return network
    name = {"sanet": "SANet", "mast": "MAST", "mccnet": "MCCNet", "adaattn": "AdaAttN"}[method]
    network = getattr(MODULES[method], name)(WIDTHS)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3):
            torch.nn.init.kaiming_normal_(layer.weight)
    return network


def released(method, network):
    """{released file: state dict}."""
    return {file: network.get_submodule(part).state_dict() for file, part in MODULES[method].FILES.items()}


@pytest.fixture(scope="module", params=MODULES)
def case(request):
    return request.param, MODULES[request.param].load(released(request.param, build(request.param)))


def test_files_on_disk(case, tmp_path):
    method, network = case
    files = {}
    for file, state in released(method, network).items():
        nested = {"iter": 1, "state_dict": state, "optimizer": {"param_groups": [{"lr": 1e-4}]}}
        files[file] = tmp_path / file
        torch.save(nested if method == "artflow" else state, files[file])
    loaded = MODULES[method].load(files)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    content, style = images(1, 3, 32, 48), images(1, 3, 40, 36, seed=1)
    assert torch.equal(loaded.stylise(content, style), network.stylise(content, style))


def test_files_that_do_not_fit(case):
    method, network = case
    files = released(method, network)
    for file, state in files.items():
        key = max(state, key=lambda key: state[key].numel())
        broken = (
            {k: v for k, v in state.items() if k != key},
            state | {key: state[key][:-1]},
            state | {"classifier.weight": torch.ones(1)},
            {"conv1.weights": torch.ones(3)},
        )
        for other in broken:
            with pytest.raises(UserError) as error:
                MODULES[method].load(files | {file: other})
            assert any(name in str(error.value) for name in files)
            assert type(network).__name__ in str(error.value)
        with pytest.raises(UserError, match=file):
            MODULES[method].load({name: state for name, state in files.items() if name != file})


def test_sizes(case):
    """Content of the method's multiple, style of any size for the methods that take any; not square."""
    method, network = case
    content = images(1, 3, 3 * network.multiple + 16 - 16 % network.multiple, 4 * network.multiple)
    content = F.pad(content, (0, network.multiple * 2, 0, network.multiple * 2), mode="reflect")
    style = images(1, 3, 44, 72, seed=1) if method == "artflow" else images(1, 3, 45, 71, seed=1)
    made = network.stylise(content, style)
    assert made.shape == content.shape and torch.isfinite(made).all()
    other = network.stylise(content, style.flip(2) ** 3)
    assert (other - made).abs().max() > 1e-3 * made.std()


@pytest.mark.parametrize("method, made", [("sanet", (64, 96)), ("mccnet", (64, 96)), ("mast", (56, 88))])
def test_sizes_that_pooling_rounds(method, made):
    network = MODULES[method].load(released(method, build(method)))
    assert network.stylise(images(1, 3, 61, 94), images(1, 3, 33, 47)).shape == (1, 3, *made)


def rows(features, wanted):
    """Features of the images numbered `wanted`."""
    if isinstance(features, dict):
        return {name: tensor[wanted] for name, tensor in features.items()}
    return tuple(tensor[wanted] for tensor in features)


def test_every_image_is_encoded_once(case):
    """A batch of pairs from features of single images is each pair stylised alone."""
    _, network = case
    content, style = images(2, 3, 48, 64), images(3, 3, 40, 56, seed=1)
    c, s = network.encode_content(content), network.encode_style(style)
    pairs = [(i, j) for i in range(2) for j in range(3)]
    made = network.decode(rows(c, [i for i, _ in pairs]), rows(s, [j for _, j in pairs]))
    for image, (i, j) in zip(made, pairs):
        alone = network.stylise(content[i : i + 1], style[j : j + 1])
        torch.testing.assert_close(image[None], alone, rtol=1e-3, atol=1e-3 * alone.std().item())


def test_trainable(case):
    method, _ = case
    trained = build(method).train()
    trained.stylise(images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)).square().mean().backward()
    for name, parameter in trained.named_parameters():
        if not name.startswith("encoder.") and name not in UNUSED:  # the encoder stays frozen in training
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any() or name.endswith("f.bias"), name


def test_half_precision_and_memory_layout(case):
    """bf16 by autocast stays close; channels-last is the same."""
    _, network = case
    content, style = images(2, 3, 32, 48), images(2, 3, 32, 48, seed=1)
    expected = network.stylise(content, style)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.stylise(content, style).float()
    assert (half - expected).abs().mean() < 0.25 * expected.std()
    last = network.stylise(*(x.contiguous(memory_format=torch.channels_last) for x in (content, style)))
    torch.testing.assert_close(last, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@pytest.mark.parametrize("method", ["sanet", "mccnet"])
def test_no_strength_leaves_the_content_as_its_own_style(method):
    network = MODULES[method].load(released(method, build(method)))
    content, style = images(1, 3, 32, 48), images(1, 3, 40, 40, seed=1)
    own = network.stylise(content, content)
    torch.testing.assert_close(network.stylise(content, style, strength=0.0), own, rtol=1e-4, atol=1e-4)
    full = network.stylise(content, style, strength=1.0)
    assert torch.equal(full, network.stylise(content, style))
    half = network.stylise(content, style, strength=0.5)
    assert 0 < (half - own).norm() < (full - own).norm()


def test_sanet_steps():
    network = sanet.load(released("sanet", build("sanet")))
    content, style = images(1, 3, 32, 48), images(1, 3, 40, 40, seed=1)
    twice = network.stylise(network.stylise(content, style), style)
    assert torch.equal(network.stylise(content, style, steps=2), twice)


def test_mccnet_strength_blends_fused_features():
    network = mccnet.load(released("mccnet", build("mccnet")))
    content = network.encode_content(images(1, 3, 32, 48))
    own, style = content[2:], network.encode_style(images(1, 3, 40, 40, seed=1))
    blend = 0.3 * network.fuse(content, style) + 0.7 * network.fuse(content, own)
    torch.testing.assert_close(with_options(network, strength=0.3).fuse(content, style), blend)


def test_mccnet_energy_is_the_mean_square_over_the_bias():
    """g is affine and its input has mean 0, so its sum is the number of positions times its bias."""
    torch.manual_seed(0)
    mcc, features = mccnet.Correlation(5).double(), images(2, 5, 7, 9).double()
    torch.nn.init.uniform_(mcc.g.bias, 1, 2)
    square = mcc.g(mvn(features)).square().mean((2, 3))
    torch.testing.assert_close(mcc.weigh(features)[:, :, 0, 0], mcc.fc(square / mcc.g.bias))


def test_adaattn_spread_around_the_attended_mean():
    torch.manual_seed(0)
    features = [images(1, 2, 12, 16), images(1, 3, 6, 8)]
    other = [images(1, 2, 8, 8, seed=1), images(1, 3, 4, 4, seed=1)]
    block = adaattn.AttentionNorm(3, 5).double()
    features, other = ([x.double() for x in maps] for maps in (features, other))
    got = block(*block.content(features), *block.style(other))
    key = [torch.cat([mvn(maps[0][:, :, ::2, ::2]), mvn(maps[1])], 1) for maps in (features, other)]
    logits = torch.einsum("bkn,bkm->bnm", block.f(key[0]).flatten(2), block.g(key[1]).flatten(2))
    share, value = logits.softmax(2), block.h(other[1]).flatten(2)
    mean = torch.einsum("bnm,bcm->bcn", share, value)
    spread = torch.einsum("bnm,bcnm->bcn", share, (value[:, :, None] - mean[..., None]) ** 2).sqrt()
    expected = spread.unflatten(2, (6, 8)) * mvn(features[1]) + mean.unflatten(2, (6, 8))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


def test_adaattn_chooses_what_a_seeded_global_generator_would():
    state = torch.get_rng_state()
    torch.manual_seed(6666)
    expected = torch.randperm(300)[:100]
    torch.set_rng_state(state)
    assert torch.equal(adaattn.choose(300, 100, 6666), expected)
    assert torch.equal(torch.get_rng_state(), state)
    network = adaattn.load(released("adaattn", build("adaattn")))
    style = images(2, 3, 40, 40)
    every, some = network.encode_style(style), with_options(network, samples=7).encode_style(style)
    assert every[0].shape[1] == 100 and some[0].shape[1] == some[1].shape[1] == 7
    chosen = adaattn.choose(100, 7, 6666)
    assert torch.equal(some[1], every[1][:, chosen]) and torch.equal(some[2], every[2])
    assert not torch.equal(with_options(network, samples=7, seed=1).encode_style(style)[0], some[0])


def test_mast_map_solves_its_least_squares():
    """P is where the gradient of sum U_ij |P^T x_i - y_j|^2 vanishes, with U written out as a matrix."""
    x, y = images(4, 9, 8).double(), images(4, 5, 11, seed=1).double()
    cosine = F.normalize(x.flatten(1), dim=0).T @ F.normalize(y.flatten(1), dim=0)
    u = torch.zeros_like(cosine)
    u.scatter_(1, cosine.topk(3, 1).indices, 1.0)
    u.scatter_(0, cosine.topk(3, 0).indices, 1.0)
    i, j = align.links(x.flatten(1), y.flatten(1), 3, rows=7)
    assert torch.equal(torch.stack([i, j], 1), u.nonzero())
    p = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    loss = (u[None] * ((p.T @ x.flatten(1))[:, :, None] - y.flatten(1)[:, None]) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, p, create_graph=True)
    hessian = torch.stack(
        [torch.autograd.grad(g, p, retain_graph=True)[0].flatten() for g in gradient.flatten()]
    )
    best = torch.linalg.solve(hessian, -gradient.detach().flatten()).view(4, 4)
    got = align.align(x, y, neighbours=3, threshold=128)
    torch.testing.assert_close(got, (best.T @ x.flatten(1)).view_as(x))


class Largest(TorchDispatchMode):
    """Keeps the most elements that a tensor made meanwhile has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        dense = [t for t in tree_leaves(made) if torch.is_tensor(t) and t.layout == torch.strided]
        self.elements = max([self.elements, *(t.numel() for t in dense)])
        return made


def test_mast_holds_no_features_of_every_pair():
    """Of 2,000 pairs and more, features of 64 channels would be twice as large as the similarities."""
    x, y = images(64, 16, 16), images(64, 16, 16, seed=1)
    with Largest() as largest:
        align.align(x, y, neighbours=5, threshold=128)
    assert len(align.links(x.flatten(1), y.flatten(1), 5)[0]) > 2000
    assert largest.elements == 256 * 256


def test_mast_pools_and_refuses_too_few_points():
    content, style = images(4, 16, 16), images(4, 6, 6, seed=1)
    assert align.pooled(content, 8).shape == (4, 8, 8) and align.pooled(style, 8) is style
    assert align.align(content, style, 5, threshold=4).shape == content.shape
    with pytest.raises(UserError, match=r"dim_thresh=1: .* 1 points for 4 channels"):
        align.align(content, style, 5, threshold=1)


def test_mast_strength_and_levels():
    network = mast.load(released("mast", build("mast")))
    content, style = images(1, 3, 48, 64), images(1, 3, 40, 56, seed=1)
    plain = network.stylise(content, style, strength=0.0)
    torch.testing.assert_close(plain, network.stylise(content, style.flip(3), strength=0.0))
    assert not torch.allclose(plain, network.stylise(content, style))
    one = network.stylise(content, style, layers=("r41",))
    then = network.stylise(one, style, layers=("r31", "r21"))
    torch.testing.assert_close(then, network.stylise(content, style))
    with pytest.raises(UserError, match="layers=r31,r51: r51 is not among r41, r31, r21"):
        network.stylise(content, style, layers=["r31", "r51"])


@pytest.mark.parametrize("method", MODULES)
def test_pictures_of_one_colour(method):
    """No division by a spread of zero, no singular system."""
    network = MODULES[method].load(released(method, build(method)))
    plain, other = torch.full((1, 3, 32, 32), 0.5), images(1, 3, 32, 32)
    for content, style in ((plain, other), (other, plain), (plain, 0 * plain)):
        assert torch.isfinite(network.stylise(content, style)).all()


def test_artflow_reverses():
    network = artflow.load(released("artflow", build("artflow")))
    content = images(2, 3, 32, 48)
    assert network(content).shape == (2, 48, 8, 12)
    torch.testing.assert_close(network.reverse(network(content)), content, rtol=0, atol=1e-5)
    made = network.stylise(content, images(2, 3, 32, 32, seed=1), strength=0.0)
    torch.testing.assert_close(made, content, rtol=0, atol=1e-5)


def test_artflow_latents_take_the_statistics_of_the_style():
    network = artflow.load(released("artflow", build("artflow"))).double()
    content, style = images(2, 3, 64, 48).double(), images(2, 3, 56, 64, seed=1).double()
    mean, covariance = artflow.statistics(network(style))
    made = network(network.stylise(content, style, operator="adain"))
    for got, expected in zip(mean_std(made), mean_std(network(style))):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    made_mean, made_covariance = artflow.statistics(network(network.stylise(content, style, operator="wct")))
    torch.testing.assert_close(made_mean, mean)
    torch.testing.assert_close(made_covariance, covariance, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="operator=patch"):
        network.stylise(content, style, operator="patch")


@pytest.mark.parametrize("operator", ["adain", "wct"])
def test_artflow_takes_statistics_of_an_image_once(operator, monkeypatch):
    """What whitens a content, or colours after a style, is made when that is encoded, not for every pair."""
    network = artflow.load(released("artflow", build("artflow")))
    contents, styles = images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)
    network = with_options(network, operator=operator, strength=0.7)
    encoded = network.encode_content(contents), network.encode_style(styles)
    monkeypatch.setattr(artflow, "statistics", None)
    monkeypatch.setattr(artflow, "power", None)
    made = network.decode(*encoded)
    monkeypatch.undo()
    expected = network.stylise(contents, styles)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


def test_artflow_wct_drops_what_has_no_variance():
    latent = images(1, 3, 6, 6).double()
    latent[:, 2] = latent[:, 1]  # an eigenvalue of zero
    _, covariance = artflow.statistics(latent)
    torch.testing.assert_close(covariance[0], torch.cov(latent[0].flatten(1)))
    half = artflow.power(covariance, -0.5)
    whitened = (half @ covariance @ half)[0]
    assert torch.linalg.matrix_rank(whitened, atol=1e-6) == 2
    torch.testing.assert_close(whitened @ whitened, whitened)


def test_artflow_before_training():
    network = artflow.ArtFlow(blocks=1, flows=2, hidden=4)
    with pytest.raises(UserError, match=r"glow\.pth.*ArtFlow before training"):
        artflow.load(released("artflow", network))
    batch = 5 + 3 * images(4, 3, 16, 16)
    network.initialise(batch)
    first = network.blocks[0].flows[0].actnorm
    std, mean = torch.std_mean(first(F.pixel_unshuffle(batch, 2)), (0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(12), rtol=0, atol=1e-5)
    torch.testing.assert_close(std, torch.ones(12), rtol=0, atol=1e-4)
    artflow.load(released("artflow", network))


def test_artflow_convolution_starts_as_a_rotation():
    matrix = InvertibleConvolution(12).matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(12), rtol=0, atol=1e-5)
