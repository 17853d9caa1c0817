"""Semantic Surgery while sampling: concepts that a prompt's embedding seems to hold are subtracted from it.

`machine_unlearning.sample` finds `intervention` here for runs of this method. A batch may mix prompts
that hold one with others, which stay as they are, bit for bit.
"""

from functools import cache

import torch

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion
from evaluation.core.record import read_record
from machine_unlearning.core.cli import recorded_settings
from machine_unlearning.semantic_surgery.gates import Gate, detector, directions_of, read_gates
from machine_unlearning.semantic_surgery.surgery import edited, strength


def intervention(sd: StableDiffusion, run) -> Intervention:
    """What a run does while images are sampled, with the weights that `sd` has now."""
    record = read_record(run)
    s = recorded_settings(run, record)
    return erasing(sd, read_gates(run, record), s["gamma"], s["threshold"], s["scale"])


def erasing(sd, gates: list[Gate], gamma: float, threshold: float, scale: float) -> Intervention:
    """Edits the embeddings of prompts in which a gate's presence exceeds the threshold.

    The edit can be differentiated by the embedding, through the similarity as well; which gates are open is a
    step, without a gradient: where all are shut, an attack meets the model as it is.
    """
    look = detector(sd, gates, gamma)

    @cache
    def removed(active: tuple[bool, ...]) -> torch.Tensor:
        """[L,D]: the direction of the active concepts, encoded as one text."""
        return directions_of(sd, [", ".join(g.concept for g, on in zip(gates, active) if on)])[0]

    def edit(ids, text):
        with torch.autocast(text.device.type, enabled=False):
            rho = look(text)
            active = (rho > threshold).tolist()
            rows = [row for row, gates_open in enumerate(active) if any(gates_open)]
            if not rows:
                return text
            away = torch.stack([removed(tuple(active[row])) for row in rows])
            new = edited(text[rows].float(), away, scale * strength(rho[rows], threshold))
        return text.index_copy(0, torch.tensor(rows, device=text.device), new.to(text.dtype))

    def touches(ids) -> torch.Tensor:
        return (look(sd.embed(ids)) > threshold).any(-1).cpu()

    return Intervention(text=edit, touches=touches)
