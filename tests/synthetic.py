"""A study with planted effects, stored like a real one, for tests and benchmarks of `analysis`.

The values are a formula plus jitter from named streams, so the same study has the same values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from study import store
from study.run import Recipe, Run
from study.seeds import stream
from study.store import Provenance, schema
from study.store.rows import publish_rows
from study.store.schema import DIVERGED, FINISHED
from study.store.studies import write_study
from study.store.unfinished import write_failure
from tests.stored import a_failure, a_provenance

NUM_TEST = 10_000
NUM_CLASSES = 10

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The planted effects; each is off at 0. Heights are test errors (fractions).

    - `epoch_peak`: height of the epoch-wise peak at 20 % label noise and the largest size; it grows
      with noise and size (C1). `peak_without_noise`: its height without label noise.
    - `slowdown`: a tenfold source size delays interpolation and peak by 10**slowdown (C2).
    - `capacity`: largest target size that is interpolated with nothing frozen; it falls a
      hundredfold, in equal ratios, to the head alone (C3).
    - `freezing_peak`: height over the frozen counts where the size meets the capacity (C4).
    - `overfreezing`: advantage of the source "far" over "near" with all but the head frozen; its
      disadvantage with nothing frozen (C5a). `far_at_peak`: its advantage near the freezing peak (C5b).
    - `jitter`: standard deviation between evaluations. `seed_spread`: between seeds, which shift
      the whole curve, equally in every cell.
    """

    epoch_peak: float = 0.08
    peak_without_noise: float = 0.0
    slowdown: float = 0.3
    capacity: float = 8_000.0
    freezing_peak: float = 0.06
    overfreezing: float = 0.03
    far_at_peak: float = 0.0
    jitter: float = 0.002
    seed_spread: float = 0.004


NOTHING = Truth(epoch_peak=0.0, slowdown=0.0, freezing_peak=0.0, overfreezing=0.0)


def runs(
    *,
    num_epochs: int = 200,
    source_tasks: Sequence[str] = ("near", "far"),
    source_sizes: Sequence[int] = (500, 5_000),
    sizes: Sequence[int] = (250, 1_000, 4_000, 16_000),
    label_noises: Sequence[float] = (0.0, 0.2),
    frozen: Sequence[int] = (0, 2, 4, 6, 8, 9),
    seeds: Sequence[int] = (0, 1, 2),
    widths: Sequence[int] = (8,),
    controls: bool = False,
    recipe: Recipe | None = None,
) -> list[Run]:
    """Return sources, then cells "near"/"far" → "target"; with `controls` every arm.

    The controls use the largest source size: same task (half a → half b), random frozen, scratch,
    and re-initialised above the cut.
    """
    plain = Recipe(num_epochs=num_epochs)
    recipe = recipe or plain
    again = replace(plain, above_cut="reinitialised")
    points = [
        {"size": size, "label_noise": noise, "frozen": cut}
        for size, noise, cut in product(sizes, label_noises, frozen)
    ]
    starts: list[Run] = []
    cells: list[Run] = []
    for width, seed in product(widths, seeds):
        base = Run(
            task="target", size=max(source_sizes), model="resnet18", width=width, recipe=plain,
            seed=seed,
        )  # fmt: skip
        sources = [
            replace(base, task=task, size=size)
            for task, size in product(source_tasks, source_sizes)
        ]
        starts += sources
        arms: list[dict[str, Any]] = [{"start": start, "recipe": recipe} for start in sources]
        if controls:
            same = replace(base, part="a")
            starts.append(same)
            arms += [
                {"start": same, "recipe": recipe, "part": "b"},
                {"start": None, "recipe": recipe},  # scratch, and random frozen
                {"start": replace(base, task=source_tasks[0]), "recipe": again},
            ]
        cells += [replace(base, **arm, **point) for arm in arms for point in points]
    return list(dict.fromkeys(starts + cells))


def small(num_epochs: int = 12, **axes: object) -> list[Run]:
    """Return a few of `runs`: two sizes, three cuts, two seeds; `axes` replaces some."""
    given = {
        "sizes": (250, 1_000),
        "source_sizes": (500,),
        "label_noises": (0.2,),
        "frozen": (0, 4, 9),
        "seeds": (0, 1),
    }
    return runs(num_epochs=num_epochs, **(given | axes))  # type: ignore[arg-type]


def write(
    root: Path | str,
    wanted: Sequence[Run],
    *,
    name: str = "synthetic",
    truth: Truth = Truth(),
    measured: Callable[[Run], Columns] | None = None,
    absent: Collection[Run] = (),
    diverged: Collection[Run] = (),
    failed: Collection[Run] = (),
) -> list[Run]:
    """Publish a study: its list of wanted Runs, and the rows of those that ended; return these Runs.

    A Run in `absent` has no rows. One in `failed` has a recorded failure instead. One in `diverged`
    ends after a quarter of its evaluations. `measured` returns the columns, instead of `truth`.
    """
    opened = store.open_store(root)
    with_rows = [run for run in wanted if run not in absent and run not in failed]
    for run in with_rows:
        columns = measured(run) if measured else measure(run, truth)
        outcome = FINISHED
        if run in diverged:
            num_rows = max(1, len(columns["step"]) // 4)
            columns = {key: values[:num_rows] for key, values in columns.items()}
            outcome = DIVERGED
        made_by = provenance(run, int(columns["step"][-1]), outcome)
        publish_rows(opened, run, table(run, columns, outcome), made_by, replace=True)
    for run in failed:
        write_failure(opened, run.id, replace(a_failure(), error="made up", kind="error"))
    write_study(opened, name, wanted)
    return with_rows


def provenance(run: Run, last_step: int, outcome: str = FINISHED) -> Provenance:
    """Return what a real Run records, with made-up values."""
    return replace(
        a_provenance(),
        code_version="0.1.0+synthetic",
        packages={"torch": "0.0", "timm": "0.0"},
        num_resumes=0,
        weights_digest=None,
        task_fingerprint="0" * 64,
        diverged_step=last_step if outcome == DIVERGED else None,
    )


def dimensions(run: Run) -> schema.Sizes:
    """Compute the sizes of a ResNet-18 of this width with a 3×3 stem."""
    layers, channels = layer_parameters(run.width or 64), 8 * (run.width or 64)
    is_block = 0 < run.frozen < len(layers) - 1
    trained = sum(layers[run.frozen :])
    if run.frozen_pieces:
        assert is_block and run.frozen_pieces == 1, run
        out = (run.width or 64) * 2 ** ((run.frozen - 1) // 2)
        trained += 9 * out * out + 2 * out - layers[run.frozen]
    if run.head_inputs:
        trained = (run.head_inputs + 1) * NUM_CLASSES
    return schema.Sizes(
        num_layers=len(layers),
        num_classes=NUM_CLASSES,
        parameters_total=sum(layers),
        parameters_trained=trained + run.trained_channels * (9 * channels + 2),
        num_channels=channels,
        num_pieces=1 + is_block,
        last_piece_channels=channels,
    )


def layer_parameters(width: int) -> list[int]:
    """Return the parameters of each of the 10 layers of ResNet-18, stem to head."""
    counts, channels = [27 * width + 2 * width], width
    for out in [width * 2**stage for stage in range(4) for _ in range(2)]:
        shortcut = channels * out + 2 * out if out != channels else 0
        counts.append(9 * channels * out + 9 * out * out + 4 * out + shortcut)
        channels = out
    return [*counts, channels * NUM_CLASSES + NUM_CLASSES]


def evaluations(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs (float64) and steps (int64) of the Run's evaluations."""
    recipe = run.recipe
    steps_per_epoch = math.ceil(run.size / recipe.batch_size)
    last = recipe.num_steps or (recipe.num_epochs or 0) * steps_per_epoch
    if recipe.evaluation == "every_epoch":
        steps = np.arange(0, last + 1, steps_per_epoch)
        if steps[-1] != last:
            steps = np.append(steps, last)
    else:
        spaced = np.rint(np.geomspace(1, last, recipe.num_evaluations))
        steps = np.unique(np.concatenate([[0], spaced])).astype(np.int64)
    return steps / steps_per_epoch, steps.astype(np.int64)


def capacity(run: Run, truth: Truth) -> float:
    """Return the largest target size that is interpolated with this frozen count."""
    return truth.capacity * 10 ** (-2 * run.frozen / (dimensions(run).num_layers - 1))


def measure(run: Run, truth: Truth) -> Columns:
    """Return every measured column, with the effects of `truth`; shapes (evaluations,)."""
    epochs, steps = evaluations(run)
    random = stream("synthetic", run.id)
    n, flipped = run.size, round(run.label_noise * run.size)
    reach = capacity(run, truth) / n  # ≥ 1: interpolates
    source_size = run.source.size if run.source else 100
    pace = 10 ** (truth.slowdown * math.log10(source_size / 100)) * 2.0  # epochs
    learnt = 1 - np.exp(-epochs / pace)
    peak_at = 5 * pace
    bump = np.exp(-0.5 * (np.log((epochs + 1e-9) / peak_at) / 0.5) ** 2)
    passed = 1 / (1 + np.exp(-4 * (np.log(epochs + 1e-9) - math.log(peak_at))))

    floor = max(0.0, 1 - min(reach, 1.0)) * (0.3 + run.label_noise)
    clean = 0.9 * (1 - learnt) + floor * learnt * 0.6
    wrong = 1 - (1 - min(1.0, floor * 3)) * passed
    height = run.label_noise / 0.2 * truth.epoch_peak + (
        truth.peak_without_noise if run.label_noise == 0 else 0.0
    )
    height *= min(1.0, n / 16_000) ** 0.5
    nearness = math.exp(-0.5 * (math.log(reach) / 0.4) ** 2)
    test = 0.25 + 0.3 * (250 / n) ** 0.25 + 0.05 * run.frozen / 9
    test = test + (0.9 - test) * (1 - learnt) + height * bump - 0.03 * passed
    test = test + truth.freezing_peak * nearness * passed
    if run.source and run.source.task == "far":
        depth = run.frozen / (dimensions(run).num_layers - 1)
        test = test + truth.overfreezing * (1 - 2 * depth) - truth.far_at_peak * nearness
    elif run.source and run.source.task == run.task:
        test = test - 0.02
    shift = truth.seed_spread * stream("synthetic seed", run.seed).standard_normal()
    test = test + shift * learnt + truth.jitter * random.standard_normal(len(epochs))
    trained = truth.jitter * random.standard_normal(len(epochs))

    num_clean = np.rint(np.clip(clean + trained * (clean > 0.01), 0, 1) * (n - flipped))
    num_wrong = np.rint(np.clip(wrong, 0, 1) * flipped)
    test_error = np.rint(np.clip(test, 0, 1) * NUM_TEST) / NUM_TEST
    loss = 0.02 + 2.2 * clean + 0.002 * np.abs(random.standard_normal(len(epochs)))
    loss_wrong = 0.05 + 2.6 * wrong + 0.002 * np.abs(random.standard_normal(len(epochs)))
    nothing = np.full(len(epochs), np.nan)
    share = flipped / n
    return {
        "epoch": epochs,
        "step": steps,
        "train_loss": (1 - share) * loss + share * loss_wrong,
        "train_error": (num_clean + num_wrong) / n,
        "train_loss_clean": loss,
        "train_error_clean": num_clean / (n - flipped),
        "train_loss_flipped": loss_wrong if flipped else nothing,
        "train_error_flipped": num_wrong / flipped if flipped else nothing,
        "test_loss": 0.1 + 2.2 * test_error + 0.002 * np.abs(random.standard_normal(len(epochs))),
        "test_error": test_error,
        "learning_rate": np.full(len(epochs), run.recipe.learning_rate),
        "wall_seconds": np.cumsum(0.1 + 0.01 * random.random(len(epochs))),
    }


def table(run: Run, columns: Mapping[str, np.ndarray], outcome: str = FINISHED) -> pa.Table:
    """Return `schema.rows_table` of columns; NaN in a nullable column is null. Fast at 4,000 rows."""
    num_rows = len(columns["epoch"])
    row = {name: values[0].item() for name, values in columns.items()}
    one = schema.rows_table(run, dimensions(run), [schema.Row(**row)], outcome)
    arrays = []
    for column in schema.COLUMNS:
        if column.name in columns:
            values = columns[column.name]
            absent = np.isnan(values) if column.nullable else None
            arrays.append(pa.array(values, column.type, mask=absent))
        elif pa.types.is_dictionary(column.type):
            value = one.column(column.name).chunk(0)
            indices = value.indices.take(pa.array(np.zeros(num_rows, np.int32)))
            arrays.append(pa.DictionaryArray.from_arrays(indices, value.dictionary))
        else:
            value = one.column(column.name)[0].as_py()
            arrays.append(pa.repeat(pa.scalar(value, column.type), num_rows))
    return pa.table(arrays, schema=schema.ROWS)
