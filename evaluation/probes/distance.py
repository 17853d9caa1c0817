"""The probe that draws nothing: how far is a model from the one that would have been, without the target?"""

from dataclasses import dataclass

from evaluation.core.config import check_ranges
from evaluation.probes.prompted import Prompted


@dataclass(frozen=True)
class Distance(Prompted):
    """Noise predicted in held-out images, beside what a model trained without the target predicts.

    A seed is a draw of the noise.
    """

    images: int  # that show a target, and as many that do not; never trained on
    levels: int  # of noise, evenly spread over all timesteps

    def __post_init__(self):
        check_ranges(self.__dict__, {"images": (1, 10**6), "levels": (1, 1000)})
        super().__post_init__()
