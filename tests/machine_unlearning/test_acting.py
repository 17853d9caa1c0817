"""The noise that an unlearned model predicts as it samples."""

from contextlib import contextmanager

import torch

from diffusion_model_finetuning.core.intervention import NOTHING, Intervention
from diffusion_model_finetuning.core.sd import eps
from machine_unlearning.core.acting import acted_eps


def test_all_that_a_method_does_is_in_it(sd):
    ids, t = sd.tokens(["Cats", "Sea"]), torch.tensor([300, 700])
    plain, inside = sd.embed(ids).requires_grad_(), []
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    @contextmanager
    def around(asked, text):
        assert asked is ids and torch.equal(text, plain) and not text.requires_grad
        handle = sd.unet.conv_out.register_forward_hook(lambda *call: inside.append(1) or 3 * call[-1])
        yield
        handle.remove()

    act = Intervention(
        text=lambda asked, text: 2 * text, stepless=lambda asked, text: text + asked[..., None], around=around
    )
    predicted = acted_eps(sd, act, ids, plain, x, t)
    assert torch.equal(predicted, 3 * eps(sd.unet, x, t, 2 * plain + ids[..., None])) and inside == [1]
    assert torch.autograd.grad(predicted.sum(), plain)[0].abs().sum() > 0
    assert torch.equal(acted_eps(sd, NOTHING, ids, plain, x, t), eps(sd.unet, x, t, plain))
