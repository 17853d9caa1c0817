"""What tests of several parts of the core need."""

import pytest


@pytest.fixture
def sd(tiny_sd):
    """The tiny model, to be changed."""
    from diffusion_model_finetuning.core.sd import load_sd

    return load_sd(tiny_sd)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Nothing is found that another test encoded."""
    from machine_unlearning.core import embeddings

    monkeypatch.setattr(embeddings, "CACHE", tmp_path)
