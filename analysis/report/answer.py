"""Answer the user's question for the first screen: the best cut, double descent, and what is open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis.claims import constant_fields
from analysis.claims.registration import RULES
from analysis.claims.verdict import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, Verdict
from analysis.load import Study
from analysis.load.export import is_kept, kept_names, kept_verdicts
from analysis.plots.style import HEAD_ONLY
from analysis.report.slices import NO_SOURCE, Line, SliceSummary, distinguishing, target_cells
from analysis.surfaces.best_cut import held_out_errors, may_be_best, smallest_step
from study.store.schema import DIVERGED

# Terms that the report uses below its first screen. One line each, as in README.md.
TERMS: Final[Mapping[str, str]] = {
    "Cut": "where the frozen layers end and the trained layers begin.",
    "Edge (of interpolation)": "the first cut, from few to many trained layers, or the first epoch at "
    "which the network fits its training set.",
    "ε": "the train error up to which a network counts as fitting (interpolating) its training set; "
    "0.1 by default.",
    "Arm": "a group of trainings with one role: the transfer itself, or a control such as random "
    "frozen layers.",
    "Face value": "what the mean curve shows, without testing whether the seeds agree.",
    "Verdict": "the answer on a claim: holds, does not hold, or cannot tell.",
}

FREEZING: Final = "C4"
# The words for a claim that holds, and for a claim that does not hold.
WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "C1": (
        "the peak over the epochs is higher with more target images",
        "the peak over the epochs is not higher with more target images",
    ),
    "C2": (
        "after a larger source set, the target is fitted later",
        "after a larger source set, the target is not fitted later",
    ),
    "C3": (
        "with fewer frozen layers, larger target sets are fitted",
        "with fewer frozen layers, no larger target sets are fitted",
    ),
    FREEZING: (
        "the test error descends twice as fewer layers are frozen",
        "the test error does not descend twice as fewer layers are frozen",
    ),
    "C4b": (
        "a curve that begins with few features of the head descends twice",
        "a curve that begins with few features of the head does not descend twice",
    ),
    "C5a": (
        "with most layers frozen, the less related source is better, or on par",
        "with most layers frozen, the less related source is worse",
    ),
    "C5b": (
        "near the peak, the less related source is better",
        "near the peak, the less related source is not better",
    ),
}
SCRATCH: Final = "from scratch"
MAX_NAMED: Final = 4


@dataclass(frozen=True, kw_only=True)
class FirstScreen:
    """The answer: `headline` of at most two sentences, and a short list."""

    headline: str
    points: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"- {point}" for point in self.points)])


@dataclass(frozen=True, kw_only=True)
class Best:
    """The choice of source and cut with the lowest test error at one target size.

    Args:
        error: mean over seeds of each seed's error at the choice of the other seeds, or of the only seed.
        standard_error: of `error`; NaN with one seed.
        others: other choices that may be the best, as text.
        baselines: mean test errors of the same source, by name: "head only", "nothing frozen", …
    """

    size: int
    choice: str
    error: float
    standard_error: float
    num_seeds: int
    num_choices: int
    others: tuple[str, ...]
    baselines: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Count:
    """`could`: number of curves that could show a peak; `shown`: number whose seeds show a peak."""

    could: int
    shown: int


def first_screen(
    study: Study, summaries: Sequence[SliceSummary], verdicts: Sequence[Verdict]
) -> FirstScreen:
    """Answer the question of the study: which cut is best, is there double descent, what is open?

    A peak counts only if the seeds show it. The rule is that of the verdicts and of the marks in the maps.
    """
    if not len(study.runs):
        return FirstScreen(headline="No Run has rows yet: nothing can be said.")
    part = next((one for one in summaries if one.has_freezing), None)
    bests = [] if part is None else best_choices(part)
    counted = {"over the epochs": epoch_counts(summaries)}
    over_cuts = freezing_counts(summaries)
    # The verdict covers a single curve over the frozen layers.
    if sum(count.could for count in over_cuts.values()) > 1:
        counted = {"over the frozen layers": over_cuts, **counted}
    asked = [one for one in verdicts if not constant_fields(study, one.claim, one.arm)]
    # C4 if the study can answer it, else the first claim that the study can answer.
    about_descent = next(
        (_sentence(one) for one in sorted(asked, key=lambda one: one.claim != FREEZING)), ""
    )
    # The size with the most choices is used; if several have the same number, the largest.
    best = max(bests, key=lambda one: (one.num_choices, one.size), default=None)
    sentences = [
        "" if part is None or best is None else _best_sentence(best, _apart(part, summaries)),
        about_descent,
    ]
    headline = (
        " ".join(filter(None, sentences)) or "The study compares no numbers of frozen layers."
    )
    missing = len(study.wanted) - len(study.runs)
    if study.wanted and missing:
        headline = f"So far ({len(study.runs):,} of {len(study.wanted):,} Runs): {headline}"
    points = [
        *([] if best is None else _best_points(best, bests)),
        _counted(counted),
        _decided(verdicts),
        *_open(study, verdicts),
        _diverged(study),
    ]
    return FirstScreen(headline=headline, points=tuple(filter(None, points)))


def _apart(part: SliceSummary, summaries: Sequence[SliceSummary]) -> str:
    """Return the words of a slice's title that distinguish the slice from the others."""
    titles = [one.part.title.split(", ") for one in summaries]
    return distinguishing(titles)[titles.index(part.part.title.split(", "))]


def best_choices(one: SliceSummary) -> list[Best]:
    """Return the best source and cut for each target size with at least two choices, by ascending size."""
    bests = (_best(one, size) for size in sorted(one.end["size"].values.tolist()))
    return [best for best in bests if best is not None]


def _best(one: SliceSummary, size: int) -> Best | None:
    names, columns, baselines = [], [], []
    end = one.end.sel(size=size)
    several_sources = len({(line.label, n) for line in one.main for n in _source_sizes(line)}) > 1
    for line in one.main:
        for source_size in _source_sizes(line):
            # A line without a source is repeated for every source size.
            there = source_size if source_size in end["source_size"] else end["source_size"][0]
            errors = end["test_error"].sel(source=line.label, source_size=there)
            errors = errors.dropna("frozen", how="all").transpose("seed", "frozen")
            source = ""
            if several_sources:
                images = f" ({source_size:,} images)" if len(_source_sizes(line)) > 1 else ""
                source = f" from {line.label}{images}"
            for frozen in errors["frozen"].values:
                names.append(f"{end['cut'].sel(frozen=frozen).item()}{source}")
                columns.append(errors.sel(frozen=frozen).values)
                baselines.append(_baselines(one, end, errors))
    if len(columns) < 2:
        return None
    values = np.stack(columns, axis=1)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    best = int(values.mean(axis=0).argmin())
    chosen = held_out_errors(values) if len(values) > 1 else values[:, best]
    step = one.part.resolution or smallest_step(values)
    kept = may_be_best(values, resolution=step)
    return Best(
        size=size,
        choice=names[best],
        error=float(chosen.mean()),
        standard_error=float(chosen.std(ddof=1) / np.sqrt(len(chosen)))
        if len(chosen) > 1
        else np.nan,
        num_seeds=len(values),
        num_choices=len(names),
        others=tuple(name for i, name in enumerate(names) if kept[i] and i != best),
        baselines=baselines[best],
    )


def _source_sizes(line: Line) -> list[int]:
    return sorted(int(size) for size in line.cells["source_size"].unique())


def _baselines(one: SliceSummary, end: xr.Dataset, errors: xr.DataArray) -> dict[str, float]:
    """Return mean errors by name: head only, the fewest frozen layers, from scratch, and chance."""
    means = errors.mean("seed")
    counts = means["frozen"].values
    names = {count: end["cut"].sel(frozen=count).item() for count in counts}
    # `frozen` of a head of fewer features is larger than that of head only.
    most = next((count for count in counts if names[count] == HEAD_ONLY), counts.max())
    found = {names[count]: float(means.sel(frozen=count)) for count in (most, counts.min())}
    if NO_SOURCE in [line.label for line in one.controls] and 0 in end["frozen"]:
        scratch = end["test_error"].sel(source=NO_SOURCE, frozen=0).isel(source_size=0)
        if scratch.notnull().any():
            found[SCRATCH] = float(scratch.mean("seed"))
    classes = pd.concat([line.cells["num_classes"] for line in one.part.lines]).max()
    if classes > 1:
        found["chance"] = 1 - 1 / float(classes)
    return found


def _best_sentence(best: Best, apart: str) -> str:
    error = f"{best.error:.3f}"
    if best.num_seeds > 1:
        error += f" ± {best.standard_error:.3f} on held-out seeds"
    baselines = [f"{name} {value:.3f}" for name, value in best.baselines.items()]
    beside = ", ".join(text for text in baselines if not best.choice.startswith(text[:-6]))
    where = f"{best.size:,} training images" + (f", {apart}" if apart else "")
    after = " of the transfer" if SCRATCH in best.baselines else ""
    return (
        f"Lowest test error{after} after the last epoch, with {where}: {best.choice}, {error}"
        + (f" ({beside})." if beside else ".")
    )


def _best_points(best: Best, bests: Sequence[Best]) -> list[str]:
    if best.num_seeds < 2:
        points = ["Which cut is best is not known from one seed."]
    else:
        num_others = best.num_choices - 1
        if len(best.others) == num_others:
            text = (
                f"With {best.num_seeds} seeds, this is not shown to be better than any of the "
                f"{num_others} other choices."
            )
        elif best.others:
            more = len(best.others) - MAX_NAMED
            named = "; ".join(best.others[:MAX_NAMED]) + (f"; {more} more" if more > 0 else "")
            text = f"Of {num_others} other choices, these may be as good: {named}."
        else:
            text = f"Each of the {num_others} other choices is worse, tested over {best.num_seeds} seeds."
        points = [f"{text} On held-out seeds: each seed's error at the choice of the other seeds."]
    sizes = [
        f"{one.size:,} images: {one.choice}, {one.error:.3f}" for one in bests if one is not best
    ]
    if sizes:
        points.append(f"Best at other sizes: {'; '.join(sizes[-MAX_NAMED:])}.")
    return points


def _sentence(one: Verdict) -> str:
    holds, does_not = WORDS[one.claim]
    if one.answer == CANNOT_TELL:
        return f"Whether {holds} is open (claim {one.claim}: {CANNOT_TELL})."
    effect = one.effect
    if one.claim == FREEZING and one.answer == HOLDS and effect is not None:
        low, high = (f"{100 * end:.1f}" for end in (effect.low, effect.high))
        return (
            "As fewer layers are frozen, the test error rises to a peak, near where the training set is "
            f"just fitted, and falls again; the smaller of the two is {100 * effect.estimate:.1f} points, "
            f"95 % interval [{low}, {high}] (claim {FREEZING} {HOLDS})."
        )
    words = holds if one.answer == HOLDS else does_not
    return f"{words[0].upper()}{words[1:]} (claim {one.claim} {one.answer})."


def freezing_counts(summaries: Sequence[SliceSummary]) -> dict[str, Count]:
    """Count the peaks along the frozen layers after the last epoch, by label noise; see `epoch_counts`."""
    return _by_noise(
        (one, _count(one.freezing.sel(source=[line.label for line in one.main])))
        for one in summaries
        if one.has_freezing
    )


def epoch_counts(summaries: Sequence[SliceSummary]) -> dict[str, Count]:
    """Count the peaks along the epochs, by label noise in words; a single level has the key ""."""
    return _by_noise(
        (one, _count(one.epochs[line.label]))
        for one in summaries
        for line in one.main
        if line.label in one.epochs
    )


def _by_noise(counts: Iterable[tuple[SliceSummary, Count]]) -> dict[str, Count]:
    found: dict[float, list[Count]] = {}
    for one, count in counts:
        found.setdefault(one.part.label_noise, []).append(count)

    def name(noise: float) -> str:
        if len(found) == 1:
            return ""
        return f"with {noise:.0%} label noise" if noise else "without label noise"

    return {
        name(noise): Count(
            could=sum(one.could for one in some), shown=sum(one.shown for one in some)
        )
        for noise, some in sorted(found.items())
    }


def _count(peaks: xr.Dataset) -> Count:
    could = peaks["could"].values
    return Count(could=int(could.sum()), shown=int((could & peaks["shown"].values).sum()))


def _counted(counted: Mapping[str, Mapping[str, Count]]) -> str:
    """Return a sentence on how many curves over each axis show a second descent; "" if none could."""
    parts = [
        f"{count.shown} of {count.could} curves {' '.join(filter(None, [where, name]))}"
        for where, counts in counted.items()
        for name, count in counts.items()
        if count.could
    ]
    return f"Judged alone, a second descent is shown by {', '.join(parts)}." if parts else ""


def _decided(verdicts: Sequence[Verdict]) -> str:
    decided = [
        f"{WORDS[one.claim][0 if one.answer == HOLDS else 1]} ({one.claim} {one.answer})"
        for one in verdicts
        if one.answer in (HOLDS, DOES_NOT_HOLD) and one.claim != FREEZING
    ]
    return f"Also decided: {'; '.join(decided)}." if decided else ""


def _open(study: Study, verdicts: Sequence[Verdict]) -> list[str]:
    """Return two sentences: what would decide each open claim; which other bundled studies decide it."""
    undecided = [one for one in verdicts if one.answer == CANNOT_TELL]
    elsewhere = _decided_elsewhere(study)
    open_claims, others = [], []
    for one in undecided:
        if not constant_fields(study, one.claim, one.arm):
            words = f"whether {WORDS[one.claim][0]} ({one.claim})"
            open_claims.append(f"{one.claim if one.claim == FREEZING else words}: {_why_open(one)}")
        if one.claim in elsewhere:
            others.append(f"{one.claim} {elsewhere[one.claim]}")
    return [
        f"Open: {'; '.join(open_claims)}." if open_claims else "",
        f"Other bundled studies: {'; '.join(others)}." if others else "",
    ]


def _why_open(one: Verdict) -> str:
    tells = [part.tell for part in one.decisive if part.tell]
    if not tells:
        return (*one.reasons, "nothing to compare")[0]
    excluded, _, why = tells[0].partition(": ")
    # "excluded so far: <evidence>: <what would decide it>"; the evidence is in the table of claims.
    return (
        f"no effect so far; {why.rpartition(': ')[2]}"
        if why and excluded == "excluded so far"
        else tells[0]
    )


def _decided_elsewhere(study: Study) -> dict[str, str]:
    """Return which other bundled studies decide each claim, in words; empty if `study` is not bundled."""
    if not is_kept(study.rows, study.name):
        return {}
    found: dict[str, dict[str, list[str]]] = {}
    for name in kept_names():
        table = kept_verdicts(name, RULES)
        if name == study.name or table is None:
            continue
        table = table[table["kind"] == "primary"]
        for claim, answer in zip(table["claim"], table["answer"], strict=True):
            if answer in (HOLDS, DOES_NOT_HOLD):
                found.setdefault(claim, {}).setdefault(answer, []).append(name)
    return {
        claim: ", ".join(f"{answer} in {', '.join(names)}" for answer, names in answers.items())
        for claim, answers in found.items()
    }


def _diverged(study: Study) -> str:
    cells = target_cells(study)
    num = int((cells["state"] == DIVERGED).sum())
    return f"{num:,} of {len(cells):,} Runs diverged." if num else ""
