"""ESD's formula in its other form, its gradient, and the timesteps it draws."""

import pytest
import torch

from diffusion_model_finetuning.core.sd import ddim_grid
from machine_unlearning.esd.train import draw_times, esd_loss, esd_target


def test_target_in_the_second_generation_s_form():
    """Of the concept's prediction, eta + 1 times the concept's direction is taken off."""
    e_null, e_concept = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64).unbind()
    for eta in (0.0, 1.0, 2.5):
        expected = e_concept - (eta + 1) * (e_concept - e_null)
        torch.testing.assert_close(esd_target(e_null, e_concept, eta), expected)


def test_loss_and_its_only_gradient():
    student, e_null, e_concept = (torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(3))
    loss = esd_loss(student, e_null, e_concept, 1.0)
    loss.backward()
    assert e_null.grad is None and e_concept.grad is None
    difference = (student - (2 * e_null - e_concept)).detach()
    torch.testing.assert_close(loss.item(), difference.pow(2).mean().item())
    torch.testing.assert_close(student.grad, 2 * difference / difference.numel())


@pytest.mark.parametrize("walk", [20, 50])
def test_exact_times_lie_on_the_grid_where_the_walk_stops(walk):
    t, stop = draw_times(4000, walk, "exact", torch.Generator().manual_seed(0))
    grid = ddim_grid(walk)
    assert [grid[k - 1] for k in stop.tolist()] == t.tolist()  # x ends at entry stop - 1's noise level
    assert set(t.tolist()) == set(grid)


def test_times_without_partial_denoising_are_uniform():
    t, stop = draw_times(100_000, 50, "none", torch.Generator().manual_seed(0))
    assert not stop.any()
    assert (t.min(), t.max()) == (0, 999)
    shares = torch.bincount(t // 20, minlength=50) / len(t)
    assert (shares - 0.02).abs().max() < 0.003
    assert abs((t % 20).float().mean() - 9.5) < 0.1
