"""Compute surfaces over the grid of a study, as labelled arrays (xarray)."""

from typing import TYPE_CHECKING, Any

import xarray as xr

from analysis.load import Study
from analysis.surfaces.best_cut import best_cut
from analysis.surfaces.bias_variance import bias_variance
from analysis.surfaces.disagreement import disagreement
from analysis.surfaces.grid import DIMENSIONS, EVALUATIONS
from analysis.surfaces.measured import (
    along,
    at_epoch,
    computed_surface,
    judge_along,
    over_epochs,
    over_seeds,
)
from study.deprecation import renamed, warn_deprecated

__all__ = [
    "DIMENSIONS",
    "EVALUATIONS",
    "along",
    "at_epoch",
    "best_cut",
    "bias_variance",
    "computed_surface",
    "disagreement",
    "judge_along",
    "over_epochs",
    "over_seeds",
]

DEPRECATED = {
    "bias_variance_surfaces": "analysis.surfaces.disagreement",
    "epoch_surfaces": "analysis.surfaces.over_epochs",
    "freezing_surfaces": "analysis.surfaces.at_epoch",
}

if not TYPE_CHECKING:  # mypy would accept any name of a module with __getattr__
    __getattr__ = renamed(__name__, DEPRECATED)


def epoch_surface(study: Study, value: str = "test_error", **options: Any) -> xr.DataArray:
    """Deprecated: use `over_epochs`."""
    warn_deprecated("analysis.surfaces.epoch_surface", "analysis.surfaces.over_epochs")
    return over_epochs(study, value, **options)


def freezing_surface(study: Study, value: str = "test_error", **options: Any) -> xr.DataArray:
    """Deprecated: use `at_epoch`."""
    warn_deprecated("analysis.surfaces.freezing_surface", "analysis.surfaces.at_epoch")
    return at_epoch(study, value, **options)


def mean(surface: xr.DataArray) -> xr.DataArray:
    """Deprecated: use `over_seeds`."""
    warn_deprecated("analysis.surfaces.mean", 'analysis.surfaces.over_seeds(surface)["mean"]')
    return over_seeds(surface)["mean"]


def standard_error(surface: xr.DataArray) -> xr.DataArray:
    """Deprecated: use `over_seeds`."""
    new = 'analysis.surfaces.over_seeds(surface)["standard_error"]'
    warn_deprecated("analysis.surfaces.standard_error", new)
    return over_seeds(surface)["standard_error"]


def count(surface: xr.DataArray) -> xr.DataArray:
    """Deprecated: use `over_seeds`."""
    warn_deprecated("analysis.surfaces.count", 'analysis.surfaces.over_seeds(surface)["count"]')
    return over_seeds(surface)["count"]
