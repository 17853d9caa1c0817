"""Protocols of probes, which look for what a model still knows of its target: settings, name and hash

The YAML files are in `evaluation/protocols/probes/{kind}/`. Prompts, sampler, size and names are those of the
sampling protocol that `answers` names, whose hash is in the probe's own. A probe draws several pictures of a
prompt, one under each of its `conditions`; `measures` tells by which of them a prompt counts as recognised.
Only Distance draws none.
"""

from pathlib import Path

from evaluation import protocol
from evaluation.probes.distance import Distance
from evaluation.probes.drawn import Completion, Noise
from evaluation.probes.ladder import NEIGHBOUR, Ladder
from evaluation.probes.prompted import Prompted
from evaluation.probes.trained import Inversion, Relearning

__all__ = [
    "KINDS",
    "NEIGHBOUR",
    "Completion",
    "Distance",
    "Inversion",
    "Ladder",
    "Noise",
    "Prompted",
    "Relearning",
    "load",
]

FOLDER = protocol.FOLDER / "probes"
KINDS = {
    "completion": Completion,
    "noise": Noise,
    "ladder": Ladder,
    "inversion": Inversion,
    "relearning": Relearning,
    "distance": Distance,
}


def load(kind: str, name: str | Path) -> Prompted:
    """The probe's protocol of that name, or the one in that YAML file; raises UserError."""
    return protocol.load(name, FOLDER / kind, KINDS[kind], {}, "--probe")
