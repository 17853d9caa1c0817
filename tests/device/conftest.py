"""Fixtures of tests that run on a pretended GPU (marker `device`), and on a real one (marker `cuda`)."""

import pytest
import torch

from tests.device.worker import Worker

KINDS = [pytest.param("pretend", marks=pytest.mark.device), pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(scope="module", params=KINDS)
def gpu(request, tmp_path_factory):
    """A Worker on the pretended or on the real GPU."""
    if request.param == "pretend" and not torch.version.cuda:
        pytest.skip("this torch has no CUDA build")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    worker = Worker(request.param, tmp_path_factory.mktemp(request.param))
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    worker = Worker("cpu", tmp_path_factory.mktemp("cpu"))
    yield worker
    worker.close()
