"""Surfaces over the grid of a study, as labelled arrays (xarray)."""

from analysis.surfaces.best_cut import best_cut
from analysis.surfaces.bias_variance import bias_variance_surfaces
from analysis.surfaces.grid import DIMENSIONS, EVALUATIONS
from analysis.surfaces.measured import (
    along,
    computed_surface,
    epoch_surface,
    freezing_surface,
    over_seeds,
)

__all__ = [
    "DIMENSIONS",
    "EVALUATIONS",
    "along",
    "best_cut",
    "bias_variance_surfaces",
    "computed_surface",
    "epoch_surface",
    "freezing_surface",
    "over_seeds",
]
