"""A search space: a Python file, or a list of Runs with a name, that says which Runs one question needs.

Owns finding such a file by name or path, running it, and turning whatever is wrong with it into one
message with its line. Refuses to look at a store: whether a Run can be trained is for `plan` to say.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

from study.grid import with_starts
from study.messages import UserError, did_you_mean
from study.planning.slips import near_name
from study.requirements import is_required, missing_text
from study.run import Run, describe
from study.tasks import BUILTIN, Task


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a search-space file defines, or a list of Runs.

    - `name`: the study's name, the file's stem; `path`: None for a list.
    - `runs`: unique Runs, each start before the Runs that need it.
    - `tasks`: every task that can be named: the built-in ones and the file's own.
    - `doc`: the file's docstring, "" where it has none.
    - `related`: the more and the less related of two source tasks, for the claims that compare them.
    - `keep_predictions`: whether the labels predicted for the test images are kept, at each evaluation
      of the Runs `with_predictions`. Rows and ids do not depend on it.
    """

    name: str
    path: Path | None
    runs: tuple[Run, ...]
    tasks: Mapping[str, Task]
    doc: str
    related: tuple[str, str] | None = None
    keep_predictions: bool = False

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks that its Runs train on, each once, in order."""
        return tuple(dict.fromkeys(run.task for run in self.runs))

    @cached_property
    def target_ids(self) -> frozenset[str]:
        """Ids of the Runs that claims are about: all but those that are merely starts.

        A start counts as a cell too if cells are trained on its task and part: Runs that start from
        something or have frozen layers. It is then their scratch baseline.
        """
        starts = {run.source for run in self.runs}
        cells = {(run.task, run.part) for run in self.runs if run.start is not None or run.frozen}
        return frozenset(
            run.id for run in self.runs if run not in starts or (run.task, run.part) in cells
        )

    @property
    def with_predictions(self) -> frozenset[str]:
        """Ids of the Runs whose predictions are kept: none, or `target_ids`."""
        return self.target_ids if self.keep_predictions else frozenset()


def packaged() -> dict[str, Path]:
    """The search spaces that come with the project: name → file."""
    # Found, not imported: search spaces import study, and not the other way round.
    found = importlib.util.find_spec("search_spaces")
    assert found is not None, "search_spaces is installed beside study"
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = [file for folder in folders for file in folder.glob("*.py")]
    return {file.stem: file for file in sorted(files) if not file.stem.startswith("_")}


def load_space(name_or_path: str | Path) -> Space:
    """The search space of this name in `search_spaces`, or in this file.

    Raises UserError where there is no such file, where it fails (with file, line and exception), or
    where it does not define RUNS, a list of different Runs, and at most TASKS, a list of Tasks,
    RELATED, two source tasks, and KEEP_PREDICTIONS, True or False.
    """
    path = _find(str(name_or_path))
    module = _execute(path)
    if not hasattr(module, "RUNS"):
        raise UserError(f"{path} does not define RUNS, a list of Runs (see study.grid)")
    return _space(
        str(path),
        name=path.stem,
        path=path,
        runs=module.RUNS,
        tasks=getattr(module, "TASKS", ()),
        doc=(module.__doc__ or "").strip(),
        related=getattr(module, "RELATED", None),
        keep_predictions=getattr(module, "KEEP_PREDICTIONS", False),
    )


def space_of(
    runs: Iterable[Run],
    name: str,
    *,
    tasks: Iterable[Task] = (),
    related: tuple[str, str] | None = None,
    keep_predictions: bool = False,
) -> Space:
    """The search space of these Runs under this name, as if a file `<name>.py` defined them.

    `tasks`, `related`, `keep_predictions`: what TASKS, RELATED and KEEP_PREDICTIONS are in a file. Raises
    UserError as `load_space` does.
    """
    return _space(
        f"study {name!r}",
        name=name,
        path=None,
        runs=runs,
        tasks=tasks,
        doc="",
        related=related,
        keep_predictions=keep_predictions,
    )


def _space(
    where: str,
    *,
    name: str,
    path: Path | None,
    runs: object,
    tasks: object,
    doc: str,
    related: object,
    keep_predictions: object,
) -> Space:
    """`where` names in messages what is wrong: a file, or a study."""
    checked = _runs(where, runs)
    return Space(
        name=name,
        path=path,
        runs=tuple(with_starts(checked)),
        tasks=_tasks(where, tasks),
        doc=doc,
        related=_related(where, related, checked),
        keep_predictions=_keep_predictions(where, keep_predictions),
    )


def _find(given: str) -> Path:
    if is_file_name(given):
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"SPACE={given}: there is no such file")
        return path
    names = packaged()
    if given not in names:
        raise UserError(unknown_text(given, names))
    return names[given]


def is_file_name(given: str) -> bool:
    """Whether this names a file, there or not, and no search space that comes along."""
    return given.endswith(".py") or "/" in given


def unknown_text(given: str, choices: Iterable[str]) -> str:
    """What to say where neither a search space nor what else can be chosen has this name."""
    names = list(choices)
    near = Path(f"{given}.py")
    if near.is_file():
        hint = f"; there is a file {near}: give its name with .py"
    else:
        hint = did_you_mean(given, names)
    return (
        f"SPACE={given}: choose one of {', '.join(names) or '(none)'}, "
        f"or give the path of a .py file{hint}"
    )


def _execute(path: Path) -> ModuleType:
    """Runs the file from its text: a byte-code cache may be older than an edit of the same second."""
    module = ModuleType(f"search_space_{path.stem}")
    module.__file__ = str(path)
    # A dataclass defined in the file looks its module up by name.
    sys.modules[module.__name__] = module
    # Files beside it can be imported, as when Python runs a script, but none in a package's place: torch
    # or timm may be imported for the first time while this runs.
    beside = str(path.parent.absolute())
    is_new = beside not in sys.path
    if is_new:
        sys.path.append(beside)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{path}{_line(path, error)}: {_told(error)}{_shadowed(path, error) or near_name(error)}"
        ) from error
    finally:
        if is_new:
            sys.path.remove(beside)
    return module


def _line(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""


def _shadowed(path: Path, error: BaseException) -> str:
    """For the end of a message: that a file beside this one has the name of an installed package."""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    elif isinstance(error, ImportError) and error.name:
        name = error.name
    else:
        return ""
    top = name.partition(".")[0]
    own = next((each for each in (f"{top}.py", top) if (path.parent / each).exists()), None)
    found = getattr(sys.modules.get(top), "__file__", None)
    if own is None or found is None or Path(found).is_relative_to(path.parent.absolute()):
        return ""
    return f"; {own} beside it is not imported, since an installed package has that name: rename it"


def _told(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and is_required(error.name):
        return missing_text(error.name)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _runs(where: str, given: object) -> list[Run]:
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise UserError(
            f"{where}: RUNS is of type {type(given).__name__}; it must be a list of Runs"
        )
    runs = list(given)
    if not runs:
        raise UserError(f"{where}: RUNS is empty")
    for index, run in enumerate(runs):
        if not isinstance(run, Run):
            hint = ": join lists by study.grid.union" if isinstance(run, list | tuple) else ""
            raise UserError(f"{where}: RUNS[{index}]={run!r:.80} is not a Run{hint}")
    seen: dict[Run, int] = {}
    for index, run in enumerate(runs):
        first = seen.setdefault(run, index)
        if first != index:
            raise UserError(
                f"{where}: RUNS[{first}] and RUNS[{index}] are the same Run ({describe(run)}); "
                "join lists that overlap by study.grid.union"
            )
    return runs


def _tasks(where: str, given: object) -> dict[str, Task]:
    if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
        raise UserError(
            f"{where}: TASKS is of type {type(given).__name__}; it must be a list of Tasks"
        )
    tasks = dict(BUILTIN)
    for index, task in enumerate(given):
        if not isinstance(task, Task):
            raise UserError(f"{where}: TASKS[{index}]={task!r:.80} is not a Task (see study.tasks)")
        if task.name in tasks and tasks[task.name] != task:
            owner = "a built-in task" if task.name in BUILTIN else "another of TASKS"
            raise UserError(f"{where}: TASKS[{index}].name={task.name!r} is the name of {owner}")
        tasks[task.name] = task
    return tasks


def _related(where: str, given: object, runs: Iterable[Run]) -> tuple[str, str] | None:
    if given is None:
        return None
    sources = sorted({run.source.task for run in runs if run.source is not None})
    match given:
        case (str(more), str(less)) if more != less and {more, less} <= set(sources):
            return more, less
    raise UserError(
        f"{where}: RELATED={given!r}: give the more and the less related source task, "
        f"two of {', '.join(sources) or '(no sources)'}"
    )


def _keep_predictions(where: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise UserError(f"{where}: KEEP_PREDICTIONS={given!r:.80}: choose True or False")
    return given
