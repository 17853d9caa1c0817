"""The saved states of a training: OUT/.training/NAME/step-N. Other folders there are somebody else's."""

import re
from pathlib import Path

from evaluation.core.errors import UserError

STATE = re.compile(r"step-([1-9]\d*)")


def folder(out: str | Path, name: str) -> Path:
    return Path(out) / ".training" / name


def saved(states: Path) -> dict[int, Path]:
    """Step -> folder, in order."""
    steps = {int(match[1]): path for path in states.glob("*") if (match := STATE.fullmatch(path.name))}
    return {step: steps[step] for step in sorted(steps) if steps[step].is_dir()}


def start(resume: str, states: Path, steps: int) -> int:
    """The step to go on from, of a training of so many `steps`, when asked to --resume; raises UserError."""
    known = saved(states)
    starts = {"latest": max(known, default=0), "never": 0} | {str(step): step for step in known}
    if resume not in starts:
        raise UserError(f"--resume {resume}: no such state in {states}; choose {', '.join(starts)}")
    if starts[resume] > steps:
        raise UserError(
            f"steps={steps}: {states} is at step {starts[resume]} already; give as many, or an earlier "
            "--resume"
        )
    return starts[resume]


def earlier(states: Path, step: int) -> str:
    """Advice for one whose state at `step` is damaged."""
    before = [other for other in saved(states) if other < step]
    return (
        f"go on from an earlier one with --resume {before[-1]}"
        if before
        else "start anew with --resume never"
    )
