"""The Frechet distance of two sets of network features, as two Gaussians

    |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1^(1/2) S_2 S_1^(1/2))^(1/2)

in float64; the symmetric form needs no complex numbers.
"""

import numpy as np
import scipy.linalg


class Moments:
    """Running mean and covariance of features that arrive in chunks [n,width]; sums in float64."""

    def __init__(self, width: int):
        self.count, self.sum, self.outer = 0, np.zeros(width), np.zeros((width, width))

    def add(self, features: np.ndarray) -> None:
        features = features.astype(np.float64)
        self.count += len(features)
        self.sum += features.sum(axis=0)
        self.outer += features.T @ features

    def __sub__(self, part: "Moments") -> "Moments":
        """Without features that were added, all of `part`'s."""
        rest = Moments(len(self.sum))
        rest.count, rest.sum = self.count - part.count, self.sum - part.sum
        rest.outer = self.outer - part.outer
        return rest

    @property
    def mean(self) -> np.ndarray:
        return self.sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased estimate, divided by count - 1."""
        return (self.outer - np.outer(self.sum, self.mean)) / (self.count - 1)


def moments(features: np.ndarray, chunk: int = 1024) -> Moments:
    total = Moments(features.shape[1])
    for start in range(0, len(features), chunk):
        total.add(features[start : start + chunk])
    return total


def frechet(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians; singular covariances are welcome."""
    try:  # the eigenvalues of S_1 S_2 in half the time
        values = scipy.linalg.eigh(cov1, cov2, type=2, eigvals_only=True)
    except np.linalg.LinAlgError:  # S_2 is singular
        values, vectors = np.linalg.eigh(cov1)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        values = np.linalg.eigvalsh(root @ cov2 @ root)
    shared = np.sqrt(values.clip(min=0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * shared)
