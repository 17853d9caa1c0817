"""By what a number was made."""

import json

import torch

from evaluation.core.environment import made_with, no_tf32


def test_made_with(monkeypatch):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert made_with("cpu")["tf32"] is True
    no_tf32()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    made = made_with("cpu")
    assert made["tf32"] is False and made["device"] == "cpu"
    assert made["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert json.loads(json.dumps(made)) == made
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)  # a process's own, not of what it makes
    assert made_with(torch.device("cpu")) == made
