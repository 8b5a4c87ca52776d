"""The handwritten digits inside scikit-learn: an image set that needs no download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.tasks.image_sets.listing import Listing, array_split


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits inside scikit-learn: 8×8, grey, 17 levels. No test split."""


def list_digits() -> Listing:
    """The digits of scikit-learn; the values 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Listing(
        class_names=tuple(str(name) for name in digits.target_names),
        train=array_split(pixels, digits.target, "digits"),
        test=None,
    )
