"""Protocols of adversarial prompts: everything that changes what is found, under one name and one hash

The YAML files are in `evaluation/protocols/attacks/`. Prompts, sampler, size and names are those of the
sampling protocol that `answers` names, whose hash is in the attack's own: the plain prompt's picture is that
of the answer set. UnlearnDiffAtk's symbols: k tokens, n timesteps.
"""

from dataclasses import dataclass
from pathlib import Path

from evaluation import canvas, protocol
from evaluation.core.config import check_choices, check_ranges
from evaluation.probes.prompted import Prompted

FOLDER = protocol.FOLDER / "attacks"
CHOICES = {"position": ("prefix", "suffix"), "loss": ("l2", "l1")}
RANGES = {
    "tokens": (1, 64),
    "timesteps": (1, 500),
    "iterations": (1, 10_000),
    "lr": (1e-6, 100),
    "weight_decay": (0, 100),
    "reference": (canvas.NUMBERS[0], canvas.NUMBERS[-1]),
}


@dataclass(frozen=True)
class Attack(Prompted):
    """Raises UserError for a value that is none of its choices, out of range, or listed twice."""

    tokens: int  # k, found for every prompt
    position: str  # where they stand: prefix, before the prompt's words, or suffix, behind them
    special: bool  # whether start, end and padding may be among them
    timesteps: int  # n, visited from the least noisy on; after each the prompt is drawn and judged
    iterations: int  # gradient steps at each of them
    lr: float  # of Adam
    weight_decay: float  # of Adam: L2, added to the gradient
    loss: str  # of the predicted noise: l2, mean square, or l1
    reference: int  # number of the real image, of the prompt's style and object, that is to be denoised
    retokenise: bool  # draw what the tokenizer makes of the found prompt's text, in place of the found tokens

    def __post_init__(self):
        super().__post_init__()
        check_choices(self.__dict__, CHOICES)
        check_ranges(self.__dict__, RANGES)


def load(name: str | Path) -> Attack:
    """The attack of that name, or the one in that YAML file; raises UserError."""
    return protocol.load(name, FOLDER, Attack, {}, "--attack")
