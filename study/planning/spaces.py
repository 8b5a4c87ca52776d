"""Find and run search-space files, and select Runs of a study."""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final

from study.fields import Plain
from study.grid import with_starts
from study.messages import UserError, did_you_mean, is_required, missing_text
from study.run import COORDINATES, Run, describe
from study.store.layout import study_path
from study.tasks import BUILTIN, Task

PROBABILITIES: Final = "probabilities"  # a value of KEEP_PREDICTIONS

_NO_SUCH_NAME: Final = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")
_NO_SUCH_ARGUMENT: Final = re.compile(
    r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'"
)


def near_name(error: BaseException) -> str:
    """Return the end of a message: "; did you mean 'x'?", or "" if no known name is similar.

    `error`: raised for a wrong name that was imported, looked up or passed as an argument. If a function
    of this package has no similar argument, the message lists all arguments.
    """
    if "did you mean" in str(error).lower():  # Python 3.13 suggests some names itself
        return ""
    if isinstance(error, ImportError) and (said := _NO_SUCH_NAME.match(str(error))):
        name, module = said.groups()
        return did_you_mean(name, _public(dir(sys.modules.get(module))))
    if isinstance(error, AttributeError) and error.name is not None:
        return did_you_mean(error.name, _public(dir(error.obj)))
    if isinstance(error, NameError) and error.name is not None:
        return did_you_mean(error.name, [*_names_at(error), *dir(builtins)])
    if isinstance(error, TypeError) and (said := _NO_SUCH_ARGUMENT.search(str(error))):
        called, name = said.groups()
        return _near_argument(name, _names_at(error).get(called))
    return ""


def _near_argument(name: str, called: Any) -> str:
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # not callable, or written in C without a signature
        return ""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    choices = [each.name for each in parameters if each.kind in named]
    if near := did_you_mean(name, choices):
        return near
    is_ours = getattr(called, "__module__", "").partition(".")[0] == "study"
    return f"; choose from {', '.join(choices)}" if is_ours else ""


def _names_at(error: BaseException) -> Mapping[str, Any]:
    """Return the names that were available to the line that raised the error."""
    frame: FrameType | None = None
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
    return {} if frame is None else {**frame.f_globals, **frame.f_locals}


def _public(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search-space file, or a list of Runs.

    - `name`: the study's name, the file's stem; `path`: None for a list.
    - `runs`: unique Runs, each start before the Runs that need it.
    - `tasks`: every valid task: the built-in ones and the file's own.
    - `doc`: the file's docstring, "" without one.
    - `related`: the more and the less related of two source tasks, for the claims that compare them.
    - `keep_predictions`: True: store the predicted labels of the test images, at each evaluation of the
      Runs in `with_predictions`. PROBABILITIES: also the class probabilities at the last evaluation.
      Rows and ids do not depend on this field.
    """

    name: str
    path: Path | None
    runs: tuple[Run, ...]
    tasks: Mapping[str, Task]
    doc: str
    related: tuple[str, str] | None = None
    keep_predictions: bool | str = False

    @property
    def task_names(self) -> tuple[str, ...]:
        """Return the names of the tasks that the Runs train on, each once, in order."""
        return tuple(dict.fromkeys(run.task for run in self.runs))

    @cached_property
    def target_ids(self) -> frozenset[str]:
        """Return the ids of the Runs that claims are about: all except Runs that are only starts.

        A start counts as a scratch baseline, too, if other Runs on its task and part have a start or
        frozen layers.
        """
        starts = {run.source for run in self.runs}
        cells = {(run.task, run.part) for run in self.runs if run.start is not None or run.frozen}
        return frozenset(
            run.id for run in self.runs if run not in starts or (run.task, run.part) in cells
        )

    @property
    def with_predictions(self) -> frozenset[str]:
        """Return the ids of the Runs whose predictions are kept: none, or `target_ids`."""
        return self.target_ids if self.keep_predictions else frozenset()

    @property
    def with_probabilities(self) -> frozenset[str]:
        """Return the ids of the Runs whose class probabilities are kept: none, or `target_ids`."""
        return self.target_ids if self.keep_predictions == PROBABILITIES else frozenset()


def packaged() -> dict[str, Path]:
    """Return the bundled search spaces: name → file."""
    # Found, not imported: search_spaces imports study, not the other way round.
    found = importlib.util.find_spec("search_spaces")
    assert found is not None, "search_spaces is installed beside study"
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = [file for folder in folders for file in folder.glob("*.py")]
    return {file.stem: file for file in sorted(files) if not file.stem.startswith("_")}


def load_space(name_or_path: str | Path) -> Space:
    """Return the bundled search space of this name, or the search space in this file.

    The file must define RUNS, a list of different Runs. It may define TASKS (a list of Tasks), RELATED
    (two source tasks) and KEEP_PREDICTIONS (True, False or "probabilities"). Raises UserError if the file
    is missing, fails (with file, line and exception), or violates these rules.
    """
    path = _find(str(name_or_path))
    try:
        study_path(path.stem)
    except ValueError as error:
        raise UserError(f"SPACE={path}: {error}; the file's name is the study's") from error
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
    keep_predictions: bool | str = False,
) -> Space:
    """Return the search space of these Runs, as if a file `<name>.py` defined them.

    `tasks`, `related`, `keep_predictions`: as TASKS, RELATED and KEEP_PREDICTIONS in a file. Raises
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
    checked = _runs(where, runs)
    space = Space(
        name=name,
        path=path,
        runs=tuple(with_starts(checked)),
        tasks=_tasks(where, tasks),
        doc=doc,
        related=_related(where, related, checked),
        keep_predictions=_keep_predictions(where, keep_predictions),
    )
    squared = [run for run in space.runs if run.recipe.loss != "cross_entropy"]
    if wrong := [run for run in squared if run.id in space.with_probabilities]:
        raise UserError(
            f"{where}: KEEP_PREDICTIONS={PROBABILITIES!r}: the outputs of {len(wrong)} Runs are not "
            f"probabilities, because Recipe.loss={wrong[0].recipe.loss!r} ({describe(wrong[0])}). "
            "Choose True, or move these Runs to another search space"
        )
    return space


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
    """Return True if this is a file's name (the file may be missing), not a bundled search space."""
    return given.endswith(".py") or "/" in given


def unknown_text(given: str, choices: Iterable[str]) -> str:
    """Return the message for a name that is neither a search space nor another choice."""
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
    module = ModuleType(f"search_space_{path.stem}")
    module.__file__ = str(path)
    # A dataclass in the file looks up its module in sys.modules.
    sys.modules[module.__name__] = module
    # The file can import its neighbours, as a script can. They cannot shadow a package: torch or timm may
    # be imported for the first time while the file runs.
    beside = str(path.parent.absolute())
    is_new = beside not in sys.path
    if is_new:
        sys.path.append(beside)
    try:
        # Compile the text: a byte-code cache misses a second edit within the same second.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{path}{_line(path, error)}: {_error_text(error)}{_shadowed(path, error) or near_name(error)}"
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
    """Return the end of a message if a file beside `path` has an installed package's name, else ""."""
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


def _error_text(error: BaseException) -> str:
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


def _keep_predictions(where: str, given: object) -> bool | str:
    if isinstance(given, bool) or (isinstance(given, str) and given == PROBABILITIES):
        return given
    raise UserError(
        f"{where}: KEEP_PREDICTIONS={given!r:.80}: choose True, False or {PROBABILITIES!r}"
    )


def chosen_ids(given: str, runs: Sequence[Run]) -> frozenset[str]:
    """Return the ids of the Runs whose coordinates have these values, and of their starts.

    `given`: coordinates and values, as in "frozen=8,9,seed=0". Raises UserError, with the choices, for an
    unknown coordinate or value, and if no Run has all values.
    """
    wanted = _parsed(given)
    of = {coordinate.name: coordinate.of for coordinate in COORDINATES}
    for name, values in wanted.items():
        if name not in of:
            near = did_you_mean(name, of)
            raise UserError(f"--only={given}: {name}: choose one of {', '.join(of)}{near}")
        there = list(dict.fromkeys(map(of[name], runs)))
        for value in values:
            if not any(_equals_text(each, value) for each in there):
                shown = list(map(_shown, sorted(there, key=_order)))
                near = did_you_mean(value, shown)
                raise UserError(
                    f"--only={given}: {name}={value}: choose from {', '.join(shown)}{near}"
                )
    chosen = [
        run
        for run in runs
        if all(
            any(_equals_text(of[name](run), v) for v in values) for name, values in wanted.items()
        )
    ]
    if not chosen:
        raise UserError(f"--only={given}: no Run matches all of these")
    ids = set()
    for run in chosen:
        needed: Run | None = run
        while needed is not None:
            ids.add(needed.id)
            needed = needed.source
    return frozenset(ids)


def _parsed(given: str) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    name = ""
    for part in given.split(","):
        before, equals, value = part.rpartition("=")
        name = before.strip() if equals else name
        if not name or not value.strip():
            raise UserError(f"--only={given}: write it as in 'frozen=8,9,seed=0'")
        wanted.setdefault(name, []).append(value.strip())
    return wanted


def _equals_text(value: Plain, text: str) -> bool:
    if isinstance(value, int | float):
        try:
            return value == float(text)
        except ValueError:
            return False
    return _shown(value) == text


def _shown(value: Plain) -> str:
    return "none" if value is None else f"{value}"


def _order(value: Plain) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if isinstance(value, int | float) else 0.0, _shown(value)
