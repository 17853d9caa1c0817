"""Full precision where a spec asks for it, also on GPUs that round factors to TF32, as they do by default."""

import pytest
import torch

from evaluation import canvas
from evaluation.data.images import to_tensor
from evaluation.mini import dataset as mini
from style_transfer.core.blocks import full_precision
from style_transfer.mccnet.model import Correlation
from style_transfer.transfer import load
from tests.style_transfer.tf32 import TF32, rounded

SHIPPED = "checkpoints/mini/style_transfer"


@pytest.fixture
def allowed():
    """As torch comes."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def allow():  # `load` forbids it in its process
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True

    yield allow
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def images():
    """Three photos and three paintings."""
    rows = [(theme, obj) for theme in (canvas.PHOTO, "Rust") for obj in ("Cats", "Sea", "Trees")]
    return torch.stack([to_tensor(mini.image(*row, 19)) for row in rows]).chunk(2)


def levels_lost(network, photos):
    with torch.no_grad():
        return float((network.reverse(network(photos)) - photos).abs().max()) * 255


def test_the_emulation(allowed):
    allowed()
    x = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-12, 3e38, -0.1])
    assert rounded(x).tolist()[:3] == [1, 1 + 2**-10, 1] and (rounded(x) / x - 1).abs().max() < 2**-10
    a, b = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), TF32():
        assert torch.equal(a @ b, rounded(a) @ rounded(b)) and not torch.equal(rounded(a), a)
        with full_precision(a):
            inside = a @ b
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32  # again
    assert torch.equal(inside, a @ b)


def test_artflow_comes_back(images, allowed):
    network = load("artflow", f"{SHIPPED}/artflow_wct", "cpu")
    allowed()
    with TF32():
        assert levels_lost(network, images[0]) < 0.2  # 5.8 if its 1 x 1 convolutions were rounded


def test_mast_matches_the_same_points(images, allowed):
    network = load("mast", f"{SHIPPED}/mast", "cpu")

    def aligned():
        with torch.no_grad():
            content, style = network.encode_content(images[0]), network.encode_style(images[1])
            return network.blend(content["r41"], style["r41"])

    expected = aligned()
    allowed()
    with TF32():
        assert torch.equal(aligned(), expected)


def test_mccnet_divides_the_same(allowed):
    torch.manual_seed(0)
    module, features = Correlation(8), torch.rand(2, 8, 6, 6)
    with torch.no_grad():
        expected = module.weigh(features)
        allowed()
        with TF32():
            assert torch.equal(module.weigh(features), expected)


@pytest.mark.cuda
def test_artflow_comes_back_on_a_gpu(images, allowed):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    network = load("artflow", f"{SHIPPED}/artflow_wct", "cuda")
    allowed()
    assert levels_lost(network, images[0].cuda()) < 0.2
