"""A task that reads images: how well edges of the original are preserved."""

import numpy as np
from PIL import Image
from scipy.ndimage import sobel

from icmbench.evaluate.statistics import MeanStatistics
from icmbench.tasks.base import Outcome


class Edges:
    """F1 score of the decoded image's edge pixels against the original's, in [0, 1]."""

    @staticmethod
    def evaluate(job, split):
        """Return ``edge_f1``, and its value for every image, from which intervals are made."""
        threshold = job.task.parameters["threshold"]
        scores = [
            f1(edges(split.original(i), threshold), edges(split.image(i), threshold))
            for i in range(len(split))
        ]
        ids = [str(identity) for identity in split.ids]
        statistics = MeanStatistics(ids, {"edge_f1": np.array(scores)})
        return Outcome({"edges": statistics}, statistics.metrics())


def edges(image, threshold):
    """Return where the luma of a uint8 RGB image [H, W, 3] is steep, bool [H, W]."""
    luma = np.asarray(Image.fromarray(image).convert("L"), np.float64) / 255
    # The kernel's weights sum to 8 on either side: a step from black to white has gradient 1.
    return np.hypot(sobel(luma, axis=0), sobel(luma, axis=1)) / 4 > threshold


def f1(true, found):
    """Return the F1 score of two boolean maps; 1 where neither has any edges."""
    total = true.sum() + found.sum()
    return 2 * (true & found).sum() / total if total else 1.0
