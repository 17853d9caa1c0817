"""What tells that the saved state of a training is damaged"""

from pathlib import Path

from evaluation.core.errors import UserError
from evaluation.core.tensors import check_finite, read_content

AVERAGE = "custom_checkpoint_0.pkl"  # accelerate's name for it


def unreadable(state: Path) -> Path:
    """The file of a damaged state that cannot be read; the state itself, if all can."""
    for path in (state / name for name in ("model.safetensors", "optimizer.bin", AVERAGE)):
        try:
            read_content(path)
        except UserError:
            return path
    return state


def check_average(state: Path, step: int) -> None:
    """ValueError unless the average is that of so many steps. Read without running what a pickle may hold,
    as accelerate would."""
    kept = read_content(state / AVERAGE)
    if "shadow_params" not in kept or kept.get("optimization_step") != step:
        raise ValueError(f"its average is not that of {step} steps")


def check_shapes(model, average, optimizer) -> None:
    """ValueError unless averages and moments are finite, and of their parameters' shapes."""
    moments = optimizer.state
    if not moments:
        raise ValueError("its optimizer has no moments")
    for (name, parameter), mean in zip(model.named_parameters(), average.shadow_params, strict=True):
        of_parameter = moments.get(parameter, {})
        tensors = [mean, *(of_parameter[key] for key in ("exp_avg", "exp_avg_sq") if of_parameter)]
        if any(tensor.shape != parameter.shape for tensor in tensors):
            raise ValueError(f"its average or moments of {name} are of another shape")
        check_finite({name: parameter.detach(), **dict(zip("amv", tensors))}, "its tensors")
