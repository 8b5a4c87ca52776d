"""Implement `study spaces` and `study new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from study.cli.arguments import Data, store_named
from study.command_line import OK, Root
from study.messages import UserError
from study.planning.spaces import load_space, packaged
from study.store import Damaged, Newer, read_study, study_names
from study.store.layout import study_path
from study.store.store import store_command

TEMPLATE: Final = '''\
"""Does freezing layers make the test error descend twice?"""  # the question, shown in the report

from study.grid import grid
from study.run import Recipe

RUNS = grid(  # every combination of these values; several values are written in brackets
    source_task="digits-low",  # trained on first; for your own images see README, "Your own study"
    source_size=300,  # training images
    target_task="digits-high",  # trained on next, starting from the source's weights
    target_size=(60, 240),
    label_noise=0.2,  # fraction of the target's training labels that are wrong
    model="resnet18",
    width=8,  # channels of its first layer
    frozen=(0, 7, 8, 9),  # leading layers that keep the source's weights
    recipe=Recipe(learning_rate=1e-3, batch_size=32, num_epochs=30),
    seed=range(3),  # each seed is a replicate: images, labels, initial values, order
)
'''


def spaces(root: Root, data: Data) -> int:
    """List search spaces: name, number of Runs, question."""
    store = store_named(root)
    lines = []
    for name in packaged():
        space = load_space(name)
        lines.append((name, f"{len(space.runs):,}", (space.doc.splitlines() or [""])[0]))
    for name in sorted(set(study_names(store)) - set(packaged())):
        try:
            lines.append((name, f"{len(read_study(store, name)):,}", f"(a study in {store.shown})"))
        except (Damaged, Newer) as error:
            lines.append((name, "?", str(error)))
    longest = max(len(name) for name, _, _ in lines)
    for name, num_runs, question in lines:
        print(f"{name:{longest}}  {num_runs:>5} Runs  {question}")
    return OK


def new(path: Annotated[Path, typer.Argument(metavar="FILE")], root: Root, data: Data) -> int:
    """Write a short search space, to be changed."""
    if path.suffix != ".py":
        raise UserError(f"FILE={path}: give a name that ends in .py")
    try:
        study_path(path.stem)
    except ValueError as error:
        raise UserError(f"FILE={path}: {error}; the file's name is the study's") from error
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise UserError(f"FILE={path}: it exists already; choose another name") from None
    num_runs = len(load_space(f"./{path}" if not path.is_absolute() else path).runs)
    plan_line = store_command("plan", str(path), root=root)
    print(f"{path}: {num_runs} Runs on bundled images; change it, then: {plan_line}")
    return OK
