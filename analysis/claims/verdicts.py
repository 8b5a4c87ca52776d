"""Present the verdicts of a study as a mapping, a table and text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.claims.verdict import Answer, Condition, Verdict
from analysis.descent.intervals import Interval
from analysis.load.arms import MATCHED_STEPS
from study.deprecation import warn_deprecated


class Verdicts(Mapping[str, Verdict]):
    """Mapping of claim ("C1" … "C5b") to verdict. `print` shows the verdicts and their reasons."""

    def __init__(self, verdicts: Iterable[Verdict], *, note: str = "") -> None:
        self.note = note
        self._by_claim = {one.claim: one for one in verdicts}

    def __getitem__(self, claim: str) -> Verdict:
        if isinstance(claim, int):  # 0.1.0 returned a tuple
            names = ", ".join(self)
            warn_deprecated("analysis.claims.claims(study)[int]", f"the claim's name: {names}")
            return tuple(self.values())[claim]
        return self._by_claim[claim]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_claim)

    def __len__(self) -> int:
        return len(self._by_claim)

    def __repr__(self) -> str:
        """Return a line for each claim, followed by its decisive conditions and its answers by ε."""
        rows = [
            (one.claim, one.answer, effect_text(one.effect, one.unit) or "–")
            for one in self.values()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [self.note] if self.note else []
        for one, row in zip(self.values(), rows, strict=True):
            cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join([*cells, one.statement]))
            indent = " " * (widths[0] + 2)
            lines += [f"{indent}because: {condition_text(part)}" for part in one.decisive]
            if not one.conditions and one.reasons:
                lines.append(f"{indent}because: {one.reasons[0]}")
            if one.by_epsilon:
                lines.append(f"{indent}{epsilons_text(one)}")
            lines += [
                f"{indent}with sources of equally many steps: {beside.answer}, "
                f"{effect_text(beside.effect, beside.unit)}"
                for beside in (
                    control.answer for control in one.controls if control.arm == MATCHED_STEPS
                )
                if beside.effect is not None
            ]
        return "\n".join(lines)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row for each claim, each answer of a control or at another ε, each exploratory result.

        Columns:
            kind: "primary", "epsilon" (another threshold of interpolation), "control" or "exploratory".
            because: the conditions that kept a claim from holding, and what would decide them.
            low, high: the 95 % interval of `effect` over seeds, in `unit`.
        """
        lines: list[dict[str, Any]] = []
        for one in self.values():
            answers: list[tuple[str, str, Answer]] = [("primary", one.arm, one)]
            answers += [("control", control.arm, control.answer) for control in one.controls]
            for kind, arm, answer in answers:
                lines.append(
                    {
                        "claim": one.claim,
                        "kind": kind,
                        "arm": arm,
                        "answer": answer.answer.value,
                        "because": "; ".join(map(condition_text, answer.decisive)),
                        "compared": answer.compared,
                        **_interval(answer.effect, answer.unit),
                        "num_runs": len(answer.run_ids),
                        "remarks": "; ".join((*answer.reasons, *answer.missing)),
                    }
                )
            for at in one.by_epsilon:
                lines.append(
                    {
                        "claim": one.claim,
                        "kind": "epsilon",
                        "arm": one.arm,
                        "answer": at.answer.value,
                        "because": at.tell,
                        "compared": f"ε = {at.epsilon:g}: {at.what}",
                        **_interval(at.effect, "error"),
                    }
                )
            for result in one.exploratory:
                lines.append(
                    {
                        "claim": one.claim,
                        "kind": "exploratory",
                        "arm": one.arm,
                        "compared": result.what,
                        **_interval(result.effect, result.unit),
                    }
                )
        return pd.DataFrame(lines)


def condition_text(part: Condition) -> str:
    """Return a condition as text: answer, interval, effect that matters, and data that would decide it."""
    text = f"{part.what}: {part.answer}"
    effect = effect_text(part.interval, part.unit)
    if effect:
        text += f", {effect}"
        if part.matters is not None:
            text += f"; {part.matters:+.3g} matters".replace("-", "−")
    return f"{text}; {part.tell}" if part.tell else text


def epsilons_text(one: Verdict) -> str:
    """Return the answers at several ε: "at ε = 0.01 holds, +0.05 […] error; …"."""
    parts = [
        f"at ε = {at.epsilon:g} {at.answer}"
        + (f", {effect_text(at.effect, 'error')}" if at.effect else "")
        # Only the words "excluded so far": the reason is the same at all ε, and conditions contain it.
        + (f" ({at.tell.partition(':')[0]})" if at.tell else "")
        for at in one.by_epsilon
    ]
    return "; ".join(parts)


def effect_text(effect: Interval | None, unit: str) -> str:
    """Return an effect with interval and unit as text; "" if there is none."""
    if effect is None:
        return ""
    if effect.df < 1:
        text = f"{effect.estimate:+.3f} {unit}, interval unknown"
    else:
        text = f"{effect.estimate:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}] {unit}"
    if unit == "log10 epochs":
        text += f" (× {10**effect.estimate:.3g})"
    return text.replace("-", "−")


def _interval(effect: Interval | None, unit: str) -> dict[str, Any]:
    if effect is None:
        return {}
    return {
        "effect": effect.estimate,
        # With one seed the spread is unknown: the ends are empty, not infinite.
        "low": effect.low if effect.df >= 1 else math.nan,
        "high": effect.high if effect.df >= 1 else math.nan,
        "unit": unit,
        "num_seeds": effect.num,
    }
