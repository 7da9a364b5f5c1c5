"""The images of each value of each attribute, and the values that can be an anchor's in a triplet (Eq. 8)."""

from __future__ import annotations

import numpy as np


class ValueIndex:
    """Index images by condition and value, from label rows (R, 3): image, condition, label.

    Raises ValueError where no condition can form a triplet.
    """

    def __init__(self, rows: np.ndarray, conditions: int) -> None:
        self.images, self.starts, self.pooled, self.anchors = [], [], [], []
        for condition in range(conditions):
            labelled = rows[rows[:, 1] == condition]
            pairs = np.unique(labelled[:, [2, 0]], axis=0)  # by value, then by image
            starts = np.unique(pairs[:, 0], return_index=True)[1]
            pooled = pairs[:, 1]
            images = np.split(pooled, starts[1:])
            total = len(np.unique(pooled))
            self.images.append(images)  # of each value
            self.starts.append(starts)  # where they begin in `pooled`
            self.pooled.append(pooled)
            # values with two images, where a labelled image lacks the value
            self.anchors.append([value for value, having in enumerate(images) if 1 < len(having) < total])
        self.usable = [condition for condition in range(conditions) if self.anchors[condition]]
        if not self.usable:
            raise ValueError("no condition has two images of one value and one of another: no triplet exists")
