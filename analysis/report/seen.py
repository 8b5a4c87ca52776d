"""What is seen of a study's slices at a glance: its errors at the end, and where its curves peak.

Owns that it is read and judged once, for the first sentence, the first picture and the gallery alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from analysis.load import Study
from analysis.report import peaks, slices
from analysis.report.slices import Line, Slice


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """One slice: `end` as `slices.at_the_end` gives it of all lines, `freezing` the peaks there
    (`peaks.freezing_peaks`), `epochs` those along the epochs of each line, by label."""

    part: Slice
    end: xr.Dataset
    freezing: xr.Dataset
    epochs: Mapping[str, xr.Dataset]

    @property
    def main(self) -> list[Line]:
        """The transfer's lines; all, where there is no other."""
        return [line for line in self.part.lines if not line.is_control] or list(self.part.lines)

    @property
    def controls(self) -> list[Line]:
        return [line for line in self.part.lines if line not in self.main]

    @property
    def has_freezing(self) -> bool:
        """Whether there is a curve over the frozen layers to be drawn."""
        return self.end.sizes["frozen"] > 1 and bool(self.end["test_error"].notnull().any())


def seen(study: Study, parts: Sequence[Slice], epsilon: float) -> list[Seen]:
    """Of every slice, in their order."""
    found = []
    for part in parts:
        end = slices.at_the_end(study, part.lines)
        epochs = {}
        for line in part.lines if "epoch" in study.measured else ():
            errors = slices.over_epochs(study, line)
            if errors["test_error"].notnull().any():
                epochs[line.label] = peaks.epoch_peaks(errors, epsilon)
        freezing = peaks.freezing_peaks(end, epsilon)
        found.append(Seen(part=part, end=end, freezing=freezing, epochs=epochs))
    return found
