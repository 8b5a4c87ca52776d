"""A GPU's first day: is the CUDA path right, and how fast is it?

    python -m tests.benchmarks.day_one [--device cuda] [--seconds 520] [--out DIR]

Runs from the source tree. Needs torch, timm, numpy, pyarrow, psutil and safetensors, but neither Ray nor
an installation of this project. `--device cpu --tiny` is a dry run. DIR/day_one.json is written after
every line, DIR/day_one.md at the end. A phase that fails is a line; a phase without time is skipped.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from torch import nn

from study.launching.options import LaunchOptions
from study.launching.train_run import execute
from study.networks.catalogue import num_layers
from study.planning.cost import TRAINING_FACTOR, layer_costs
from study.run import Recipe, Run
from study.store import open_store, read_rows
from study.store.unfinished import read_checkpoint
from study.training import cuda_graphs, loop
from study.training.cuda_graphs import NUM_WARM
from study.training.loop import Diverged, Training
from study.training.preprocessing import CHANNELS_LAST
from tests.benchmarks.training import (
    NUM_CLASSES,
    Script,
    pictures,
    store_of_pictures,
    training_on,
)
from tests.trainings import to_the_end

PACKAGES: Final = ("torch", "torchvision", "timm", "numpy", "pyarrow", "ray")
NARROW: Final = {"resnet18": 4, "densenet121": 4, "vit_tiny": 48}
WIDE: Final = {"resnet18": 64, "densenet121": 32, "vit_tiny": 192}
# The Run of the goals: 1,000 images, 4,000 epochs in batches of 128, 150 log-spaced evaluations.
NUM_TRAIN, NUM_TEST, BATCH, NUM_EPOCHS, NUM_EVALUATIONS = 1_000, 10_000, 128, 4_000, 151
# Largest difference in units of the difference between two eager trainings, which is 0 if no algorithm of
# the step adds in a random order.
TIMES_NOISE: Final = 10
LEAST_NOISE: Final = 1e-6


@dataclass
class Day:
    """The arguments, the time left, and the lines so far."""

    device: torch.device
    seconds: float
    out: Path
    tiny: bool
    lines: list[dict[str, Any]] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)  # operations a second, by precision
    began: float = field(default_factory=time.monotonic)

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def side(self) -> int:
        return 8 if self.tiny else 32

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def add(self, phase: str, case: str, ok: bool | None = None, **values: Any) -> None:
        """Print a line, and write all lines so far. `ok`: None if the line is only a measurement."""
        at = round(time.monotonic() - self.began, 1)
        self.lines.append({"phase": phase, "case": case, "ok": ok, "at": at, **values})
        shown = "  ".join(f"{key}={_text(value)}" for key, value in values.items())
        mark = {True: "ok", False: "FAIL", None: ""}[ok]
        print(f"{at:6.1f} {phase:11} {mark:4} {case}  {shown}", flush=True)
        text = json.dumps({"versions": versions(), "lines": self.lines}, indent=1)
        (self.out / "day_one.json").write_text(text)

    def do(self, phase: str, case: str, call: Callable[[], object], *, needs: float) -> None:
        """Call, or add a line if it fails, or if fewer than `needs` seconds are left."""
        if self.left() < (needs if self.is_gpu else 0):
            return self.add(phase, case, skipped=f"fewer than {needs:.0f} s are left")
        try:
            call()
        except Exception as error:
            traceback.print_exc(limit=4)
            first = str(error).partition("\n")[0][:160]
            self.add(phase, case, False, error=f"{type(error).__name__}: {first}")

    def sync(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def timed(self, call: Callable[[], object], num: int) -> float:
        """Return the seconds of one of `num` calls."""
        self.sync()
        began = time.perf_counter()
        for _ in range(num):
            call()
        self.sync()
        return (time.perf_counter() - began) / num


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {"python": sys.version.split()[0], **found, "cuda": str(torch.version.cuda), "gpu": gpu}


def same_algorithms() -> Any:
    """Make cuDNN choose by rule, not by timing: else two trainings differ for that reason."""
    real = loop.set_precision

    def set_precision(recipe: Recipe) -> None:
        real(recipe)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True

    return mock.patch.object(loop, "set_precision", set_precision)


def variable(name: str, value: str | None) -> Any:
    """Set an environment variable for a block; None leaves it as it is."""
    return mock.patch.dict(os.environ, {} if value is None else {name: value})


def training_of(
    day: Day,
    model: str,
    width: int,
    *,
    frozen: int = 0,
    channels: int = 0,
    size: int = 300,
    num_test: int = 500,
    device: torch.device | None = None,
    **recipe: Any,
) -> Training:
    """Return the training of a small Run."""
    if day.tiny:
        size, num_test = 44, 64
        recipe = {"num_epochs": 2, "batch_size": 16} | recipe
    given = {"num_epochs": 6, "batch_size": BATCH, "learning_rate": 1e-3} | recipe
    start = Run(
        task="source", size=64, model=model, width=width, seed=0, recipe=Recipe(num_epochs=1)
    )
    run = replace(
        start,
        task="target",
        size=size,
        frozen=frozen,
        trained_channels=channels,
        start=start if frozen else None,
        recipe=Recipe(**given),
    )
    return training_on(run, day.side, num_test, device or day.device)


def is_captured(training: Training) -> bool:
    return training._steps._replay is not None


def difference(one: Training, other: Training) -> float:
    """Return the largest relative difference of weights and of test losses."""
    ours, theirs = one.weights(), other.weights()
    weights = [
        float((theirs[key].double() - value.double()).norm() / (value.double().norm() + 1e-12))
        for key, value in ours.items()
    ]
    rows = zip(one.rows, other.rows, strict=True)
    return max(*weights, *(abs(a.test_loss - b.test_loss) / abs(a.test_loss) for a, b in rows))


# Phase "ceilings".


def ceilings(day: Day) -> None:
    """Measure matrix products."""
    side = 8192 if day.is_gpu else 256
    if day.is_gpu:
        about = torch.cuda.get_device_properties(0)
        day.add("ceilings", "machine", gpu=about.name, gib=about.total_memory / 2**30)
    kinds = (("float32", torch.float32, "highest"), ("tf32", torch.float32, "high"))
    for name, kind, precision in (*kinds, ("bfloat16", torch.bfloat16, "highest")):
        torch.set_float32_matmul_precision(precision)
        factor = torch.randn(side, side, device=day.device, dtype=kind)
        day.timed(lambda factor=factor: factor @ factor, 3)  # type: ignore[misc]
        seconds = day.timed(lambda factor=factor: factor @ factor, 10)  # type: ignore[misc]
        day.rates[name] = 2 * side**3 / seconds
        day.add("ceilings", f"product, {name}", tflops=day.rates[name] / 1e12)


# Phase "correct".

CASES: Final[dict[str, dict[str, Any]]] = {
    "nothing frozen": {},
    "half frozen": {"cut": 0.5},
    "head only": {"cut": 1},
    "channels": {"cut": 1, "channels": 4},
    "sgd, cosine, augmented": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": "cosine",
        "augmentation": "crop_flip",
    },
    "frozen BatchNorm in training": {"cut": 0.5, "frozen_batchnorm": "training"},
    "bfloat16": {"precision": "bfloat16", "optimizer": "adamw"},
}
OF_OTHER_FAMILIES: Final = ("nothing frozen", "half frozen", "bfloat16")


def correct(day: Day, model: str, name: str) -> None:
    """Compare eager, captured and resumed trainings, and the first epochs with those of the CPU."""
    given = dict(CASES[name])
    given["frozen"] = int(given.pop("cut", 0) * (num_layers(model) - 1))
    case, width = f"{model}, {name}", NARROW[model]
    with same_algorithms():
        with variable(cuda_graphs.SWITCH, "0"):
            eager, again = (to_the_end(training_of(day, model, width, **given)) for _ in range(2))
        noise = difference(eager, again)
        most = TIMES_NOISE * noise + LEAST_NOISE
        graph = to_the_end(training_of(day, model, width, **given))
        found = difference(eager, graph)
        captured = is_captured(graph)
        ok = found <= most and (captured or not day.is_gpu)
        why = {"not_captured": graph.not_captured} if graph.not_captured else {}
        values = {"difference": found, "eager_twice": noise, "captured": captured, **why}
        day.add("correct", f"{case}: eager = graph", ok, **values)
        first = training_of(day, model, width, **given)
        for _ in first:
            if first.step >= graph.last_step // 2:
                break
        second = training_of(day, model, width, **given)
        second.restore({key: value.clone() for key, value in first.state().items()})
        found = difference(graph, to_the_end(second))
        day.add("correct", f"{case}: resumed = uninterrupted", found <= most, difference=found)
        if given.get("precision") == "bfloat16":
            return
        host = to_the_end(
            training_of(day, model, width, device=torch.device("cpu"), **given, num_epochs=2)
        )
        rows = list(zip(host.rows, graph.rows, strict=False))
        loss = max(abs(a.test_loss - b.test_loss) / a.test_loss for a, b in rows)
        error = max(abs(a.train_error - b.train_error) for a, b in rows)
        close = loss < 0.05 and error < 0.05
        day.add("correct", f"{case}: close to the CPU", close, loss=loss, error=error)


def diverges(day: Day) -> None:
    training = training_of(day, "resnet18", NARROW["resnet18"], learning_rate=1e30)
    try:
        to_the_end(training)
        day.add("correct", "divergence is noticed", False)
    except Diverged as diverged:
        day.add("correct", "divergence is noticed", True, step=diverged.step)


def failing_capture(day: Day) -> None:
    """Train a Run whose step reads a value from the device, and one after it."""
    given = (day, "resnet18", NARROW["resnet18"])
    with same_algorithms():
        plain = to_the_end(training_of(*given))
        training = training_of(*given)
        training.parts.suffix[0].register_forward_pre_hook(_read_a_value)
        stream = torch.cuda.current_stream() if day.is_gpu else None
        to_the_end(training)
        is_left = day.is_gpu and torch.cuda.current_stream() != stream
        found = difference(plain, training)
        ok = found < 1e-3 and not is_left and bool(training.not_captured) == day.is_gpu
        values = {
            "difference": found,
            "not_captured": training.not_captured,
            "stream_left": is_left,
        }
        day.add("failing", "a step that cannot be captured", ok, **values)
        following = to_the_end(training_of(*given))
        found = difference(plain, following)
        ok = found < 1e-3 and (is_captured(following) or not day.is_gpu)
        values = {"difference": found, "captured": is_captured(following)}
        day.add("failing", "the next Run of that process", ok, **values)


def _read_a_value(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    inputs[0].sum().item()


# Phase "many".


def many_runs(day: Day) -> None:
    """Train Runs one after another: each in a new thread, as Tune calls them, then all in one thread."""
    width, num = (64, 5) if day.is_gpu else (4, 2)

    def one() -> dict[str, float]:
        began = time.perf_counter()
        training = training_of(day, "resnet18", width, frozen=3, size=NUM_TRAIN, num_test=NUM_TEST)
        next(iter(training))
        day.sync()
        first_row_s = time.perf_counter() - began
        first_step_s = day.timed(training._train_step, 1)
        to_the_end(training)
        return {"first_row_s": first_row_s, "first_step_s": first_step_s}

    shared = ThreadPoolExecutor(1)
    for kind in ("a thread each", "one thread"):
        for number in range(num):
            thread = shared if kind == "one thread" else ThreadPoolExecutor(1)
            values = thread.submit(one).result()
            if thread is not shared:
                thread.shutdown()
            # From here on the Run must take no memory.
            held = torch.cuda.memory_allocated() / 2**30 if day.is_gpu else 0.0
            alive = sum(isinstance(each, Training) for each in gc.get_objects())
            values["allocated_gib"] = held
            if day.is_gpu:
                values["reserved_gib"] = torch.cuda.memory_reserved() / 2**30
                values["free_gib"] = torch.cuda.mem_get_info()[0] / 2**30
            ok = alive == 0 and held < 0.5
            day.add("many", f"Run {number + 1}, {kind}", ok, **values)
    shared.shutdown()


# Phase "speed".


# (model, width, share of the layers that is frozen, precision, layout, against a plain script)
Case = tuple[str, int, float, str, str | None, bool]


def speed_cases(day: Day) -> list[Case]:
    """Return the cases, those of the goals first."""
    wide = NARROW if day.tiny else WIDE
    resnet: list[Case] = [
        ("resnet18", wide["resnet18"], 0, "bfloat16", None, True),
        ("resnet18", wide["resnet18"], 0, "float32", None, True),
        ("resnet18", wide["resnet18"], 0.5, "bfloat16", None, True),
        ("resnet18", wide["resnet18"], 0, "tf32", None, True),
        ("resnet18", wide["resnet18"], 0, "bfloat16", "0", False),
        ("resnet18", wide["resnet18"], 0, "float32", "1", False),
        ("resnet18", wide["resnet18"], 1, "float32", None, True),
        ("resnet18", NARROW["resnet18"], 0, "float32", None, True),
        ("resnet18", NARROW["resnet18"], 0, "float32", "1", False),
        ("resnet18", wide["resnet18"], 0.5, "float32", None, True),
    ]
    others: list[Case] = [
        (model, widths[model], 0, precision, None, precision == "float32")
        for model in ("densenet121", "vit_tiny")
        for widths in (wide, NARROW)
        for precision in ("float32", "bfloat16")
    ]
    return resnet[:3] + others[:1] if day.tiny else resnet + others


def whole_run(epoch_s: float, eval_s: float) -> float:
    return NUM_EPOCHS * epoch_s + NUM_EVALUATIONS * eval_s


def speed(day: Day, case: Case) -> None:
    model, width, share, precision, layout, has_baseline = case
    frozen = int(share * (num_layers(model) - 1))
    frozen_text = {0: "nothing", 0.5: "half", 1: "all but the head"}[share]
    layout_text = {None: "", "0": ", channels first", "1": ", channels last"}[layout]
    name = f"{model} {width}, {frozen_text} frozen, {precision}{layout_text}"
    with variable(CHANNELS_LAST, layout):
        began = time.perf_counter()
        training = training_of(
            day,
            model,
            width,
            frozen=frozen,
            size=NUM_TRAIN,
            num_test=NUM_TEST,
            precision=precision,
            num_epochs=100_000,
            evaluation="log_spaced",
            num_evaluations=2,
        )
        day.sync()
        build_s = time.perf_counter() - began
    began = time.perf_counter()
    training.measure()
    num_steps = len(training.spans)  # the last batch is smaller, and not captured
    while training.step <= NUM_WARM + 1 or training.step % num_steps:
        training._train_step()
    day.sync()
    first_s = time.perf_counter() - began
    epoch_s = num_steps * median(
        day.timed(training._train_step, num_steps) for _ in range(3 if day.tiny else 9)
    )
    eval_s = median(day.timed(training.measure, 1) for _ in range(3))
    captured = is_captured(training)
    training._steps._capture, training._steps._replay = None, None
    training._train_step()
    eager_s = day.timed(training._train_step, num_steps - 1)
    size, batch = training.run.size, training.run.recipe.batch_size
    num_images = size + training.evaluator.num_test
    image = (3, day.side, day.side)
    flops = sum(layer.flops for layer in layer_costs(model, width, NUM_CLASSES, image)[frozen:])
    image_s = flops / day.rates.get(precision, float("nan"))
    run_s = build_s + first_s + whole_run(epoch_s, eval_s)
    values: dict[str, Any] = {
        "step_ms": epoch_s / num_steps * 1e3,
        "eager_ms": eager_s * 1e3,
        "eval_ms": eval_s * 1e3,
        "first_s": build_s + first_s,
        "captured": captured,
        "floor_step_ms": TRAINING_FACTOR * image_s * size / num_steps * 1e3,
        "runs_an_hour": 3600 / run_s,
        "over_floor": run_s / whole_run(TRAINING_FACTOR * image_s * size, image_s * num_images),
    }
    if training.not_captured:
        values["not_captured"] = training.not_captured
    if day.is_gpu:
        values["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    del training
    if has_baseline:
        images = pictures(np.arange(num_images) % NUM_CLASSES, day.side)
        given = (model, width, frozen, images, size)
        plain = Script(*given, batch=batch, device=day.device, precision=precision)
        plain.epoch()
        plain.evaluate()
        plain_epoch = day.timed(plain.epoch, 1 if day.tiny else 3)
        plain_eval = day.timed(plain.evaluate, 1)
        values |= {
            "plain_step_ms": plain_epoch / num_steps * 1e3,
            "plain_eval_ms": plain_eval * 1e3,
            "times_plain": whole_run(plain_epoch, plain_eval) / run_s,
        }
    day.add("speed", name, **values)
    if day.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# Phases in processes of their own.


def child(day: Day, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.day_one", "--device", str(day.device)]
    command += ["--out", str(day.out), *(["--tiny"] if day.tiny else []), "--child", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def several_processes(day: Day, width: int) -> None:
    """Train the same Run in 1, 2 and 4 processes at once, as with `--gpus-per-trial` 1, ½ and ¼."""
    for num in (1, 2) if day.tiny else (1, 2, 4):
        children = [child(day, "share", str(width)) for _ in range(num)]
        try:
            for each in children:
                assert each.stdout is not None and each.stdout.readline() == "ready\n"
            for each in children:
                assert each.stdin is not None
                each.stdin.write("go\n")
                each.stdin.flush()
            rates = [float(each.communicate(timeout=120)[0]) for each in children]
        finally:
            for each in children:
                each.kill()
                each.wait()
        values = {"steps_a_second": sum(rates), "of_each": sum(rates) / num}
        day.add("processes", f"resnet18 {width}, {num} at once", **values)


def share(day: Day, width: int) -> None:
    """Print "ready", wait for a line, and print the steps a second of a few seconds."""
    training = training_of(day, "resnet18", width, size=NUM_TRAIN, num_epochs=100_000)
    for _ in range(NUM_WARM + 1 + len(training.spans)):
        training._train_step()
    day.sync()
    print("ready", flush=True)
    sys.stdin.readline()
    began, num = time.perf_counter(), 0
    while time.perf_counter() - began < (0.5 if day.tiny else 5):
        day.timed(training._train_step, len(training.spans))
        num += len(training.spans)
    print(num / (time.perf_counter() - began))


def killed_run(day: Day) -> Run:
    """Return a Run of a few seconds."""
    recipe = Recipe(num_epochs=60 if day.is_gpu else 30, batch_size=16, learning_rate=1e-3)
    width = 16 if day.is_gpu else 2
    return Run(task="noise", size=200, model="resnet18", width=width, seed=0, recipe=recipe)


def train_in_store(day: Day, root: str) -> None:
    with same_algorithms():
        options = LaunchOptions(device=day.device.type, checkpoint_seconds=0.05)
        execute(killed_run(day), open_store(root), options, keep_weights=True)


def killed(day: Day) -> None:
    """Kill a Run after its first checkpoint, train it again, and compare with an undisturbed one."""
    run = killed_run(day)
    with tempfile.TemporaryDirectory(prefix="day-one-") as folder:
        whole, broken = (
            store_of_pictures(Path(folder) / name, num_train=200, num_test=100, side=8)
            for name in ("whole", "broken")
        )
        assert child(day, "train", whole.root).wait() == 0
        first = child(day, "train", broken.root)
        while read_checkpoint(broken, run.id) is None and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        was_killed = first.wait() == -signal.SIGKILL
        assert child(day, "train", broken.root).wait() == 0
        one, other = (read_rows(store, run.id) for store in (whole, broken))
    losses = [np.array(each.table["test_loss"]) for each in (one, other)]
    loss = float(np.max(np.abs(losses[0] - losses[1]) / np.abs(losses[0])))
    resumes = other.provenance.num_resumes
    ok = was_killed and resumes == 1 and loss <= (1e-3 if day.is_gpu else 0)
    day.add("killed", "SIGKILL midway", ok, resumes=resumes, rows=len(losses[1]), loss=loss)


CHILDREN: Final[dict[str, Callable[..., None]]] = {
    "share": lambda day, width: share(day, int(width)),
    "train": train_in_store,
}


# The day.


def the_day(day: Day) -> None:
    day.do("ceilings", "all", lambda: ceilings(day), needs=10)
    for model in NARROW:
        for name in CASES if model == "resnet18" else OF_OTHER_FAMILIES:
            if day.tiny and (model != "resnet18" or name not in ("half frozen", "channels")):
                continue
            needs = day.seconds * 0.6  # later phases need the rest
            day.do(
                "correct",
                f"{model}, {name}",
                lambda m=model, n=name: correct(day, m, n),
                needs=needs,
            )
    day.do("correct", "divergence", lambda: diverges(day), needs=20)
    cases = speed_cases(day)
    for case in cases[:3]:
        day.do("speed", str(case), lambda case=case: speed(day, case), needs=60)
    day.do("killed", "SIGKILL midway", lambda: killed(day), needs=60)
    day.do("many", "Runs in a row", lambda: many_runs(day), needs=90)
    for width in (NARROW["resnet18"],) if day.tiny else (NARROW["resnet18"], WIDE["resnet18"]):
        case = f"resnet18 {width}"
        day.do("processes", case, lambda w=width: several_processes(day, w), needs=90)
    for case in cases[3:]:
        day.do("speed", str(case), lambda case=case: speed(day, case), needs=45)
    # Last, with a table before: before torch 2.12, a failed capture may make the process unusable.
    (day.out / "day_one.md").write_text(table(day))
    day.do("failing", "a failed capture", lambda: failing_capture(day), needs=5)


def table(day: Day) -> str:
    """Return the lines as Markdown, a table per phase, with the versions at the head."""
    parts = [", ".join(f"{name} {value}" for name, value in versions().items()), ""]
    for phase in dict.fromkeys(line["phase"] for line in day.lines):
        lines = [line for line in day.lines if line["phase"] == phase]
        keys = list(dict.fromkeys(key for line in lines for key in line))
        keys = [key for key in keys if key not in ("phase", "at")]
        parts += [f"| {' | '.join(keys)} |", f"|{'---|' * len(keys)}"]
        for line in lines:
            cells = ("" if line.get(key) is None else _text(line[key]) for key in keys)
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.day_one", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=520.0)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1 if given.device == "cpu" else 8)
    day = Day(torch.device(given.device), given.seconds, given.out, given.tiny)
    if given.child:
        CHILDREN[given.child[0]](day, *given.child[1:])
        return 0
    day.out.mkdir(parents=True, exist_ok=True)
    if day.is_gpu and not torch.cuda.is_available():
        parser.error("--device=cuda: torch finds no GPU")
    the_day(day)
    (day.out / "day_one.md").write_text(table(day))
    failed = [line["case"] for line in day.lines if line["ok"] is False]
    print(f"\n{time.monotonic() - day.began:.0f} s; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
