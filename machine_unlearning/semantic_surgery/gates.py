"""What a run knows of each target: the texts that tell it, from which similarity on, and what to subtract."""

from pathlib import Path
from typing import NamedTuple

import torch

from evaluation.core.errors import refused
from evaluation.core.record import RECORD
from machine_unlearning.semantic_surgery.surgery import directions, presence, similarity

NEUTRAL = ""  # the text from which concepts are told


class Gate(NamedTuple):
    """Opens where all its signs are present."""

    target: str
    concept: str  # the text that is subtracted
    signs: dict[str, float]  # text -> beta


def read_gates(run: str | Path, record: dict) -> list[Gate]:
    """Those of a run's targets and of the earlier runs of this method; UserError if they are damaged."""
    damaged = f"{Path(run) / RECORD}: damaged (its gates); remove the run and make it again"
    with refused(damaged, KeyError, TypeError, AttributeError, ValueError):
        gates = [Gate(**gate) for gate in record["results"]["gates"]]
        words = [word for gate in gates for word in (gate.target, gate.concept, *gate.signs)]
        betas = [beta for gate in gates for beta in gate.signs.values()]
        if not (gates and all(gate.signs for gate in gates) and all(isinstance(word, str) for word in words)):
            raise ValueError("a text is missing")
        if odd := [beta for beta in betas if type(beta) is not float or abs(beta) > 1]:
            raise ValueError(f"beta is {odd[0]!r:.60}")
    return gates


def directions_of(sd, concepts: list[str]) -> torch.Tensor:
    """[K,L,D] of concepts in words, float32."""
    return directions(sd.embed(concepts).float(), sd.embed([NEUTRAL])[0].float())


def detector(sd, gates: list[Gate], gamma: float):
    """-> look(embeddings [B,L,D]): how present each gate's target is, [B,G]: as its least present sign."""
    d = directions_of(sd, [sign for gate in gates for sign in gate.signs])
    beta = torch.tensor([beta for gate in gates for beta in gate.signs.values()], device=d.device)
    sizes = [len(gate.signs) for gate in gates]

    def look(text):
        rho = presence(similarity(text.float(), d), beta, gamma)
        return torch.stack([signs.amin(-1) for signs in rho.split(sizes, -1)], -1)

    return look
