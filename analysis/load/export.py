"""Write a study to one Parquet or CSV file, and find the bundled exports."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from analysis.load import output
from analysis.load.arms import arms
from analysis.load.cells import ARM
from analysis.load.rows import (
    SIZES,
    Evaluations,
    ExportRows,
    Facts,
    Survey,
    facts_of,
    name_evaluations,
    read_group,
)
from study import run as runs
from study.fields import canonical_json, digest_of
from study.messages import last_line
from study.run import COORDINATES, Run
from study.store import (
    Damaged,
    Newer,
    Store,
    finished_ids,
    read_failures,
    read_rows,
    read_study,
    schema,
)
from study.store.errors import naming
from study.store.layout import is_study_name
from study.store.provenance import Provenance, release
from study.store.schema import known_schemas
from study.store.store import open_uri, unreadable, without_secrets
from study.store.studies import Registration, read_registrations

METADATA_KEY: Final = b"freezewise"
DIGEST_KEY: Final = b"freezewise.digest"
FORMAT: Final = "freezewise export 2"
FORMATS: Final = ("freezewise export 1", FORMAT)  # 1: without the arm column

ARM_FIELD: Final = pa.field(
    ARM,
    pa.dictionary(pa.int32(), pa.string()),
    nullable=False,
    metadata={"unit": "", "meaning": "what the Run is in this study: analysis/load/arms.py"},
)
COLUMNS: Final = schema.ROWS.append(ARM_FIELD)

PARQUET: Final = (".parquet", ".pq", "")
CSV: Final = ".csv"
# CSV has no dictionary columns.
_PLAIN: Final = pa.schema(
    [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in COLUMNS
    ]
)

# Rows per group of whole Runs, e.g. 250 Runs of 4,000 epochs: about 250 MB in memory.
ROWS_A_GROUP: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An open export."""

    study: str
    wanted: tuple[Run, ...]
    failures: Mapping[str, str]
    survey: Survey
    rows: ExportRows


@dataclass(frozen=True, kw_only=True)
class Written:
    """The result of `export`. `absent`: ids of wanted Runs not in the file; `damaged`: reasons by id."""

    num_runs: int
    num_rows: int
    absent: tuple[str, ...]
    damaged: Mapping[str, str]

    @property
    def remarks(self) -> list[str]:
        """Return messages about Runs that are not in the file."""
        remarks = [f"{run_id} is not in the file: {why}" for run_id, why in self.damaged.items()]
        if self.absent:
            num_absent = len(self.absent)
            remarks.insert(0, f"{num_absent} Runs have no rows yet; they are not in the file")
        return remarks


def export(store: Store, study: str, path: str | Path, *, is_public: bool = False) -> Written:
    """Write all rows of a study to a local file: CSV if its name ends in ".csv", else Parquet (zstd).

    Both formats contain the table of `schema.ROWS` with each Run's arm. Parquet metadata also contain the
    wanted Runs, their states, registrations and provenance, so `load.open_study` can restore the study.
    CSV has no checksum; its missing values are empty.

    `is_public`: leave out host names and the messages of failures, which may contain file paths.

    Memory is bounded by one row group (`ROWS_A_GROUP`). Every rows file's checksum is checked; damaged
    files are left out and listed in the result. The export is written atomically.

    Raises:
        FileNotFoundError: the study is missing.
        ValueError: the file's name has another suffix, or its folder does not exist.
        Damaged, Newer: the registrations cannot be read.
        OSError: the file cannot be written; the message has its path.
    """
    path = Path(path).expanduser().absolute()
    suffix = path.suffix.lower()
    if suffix not in (*PARQUET, CSV):
        raise ValueError(
            f"FILE={path.name}: cannot write {path.suffix} files; choose a name that ends in .parquet "
            "or .csv"
        )
    if not path.parent.exists():
        raise ValueError(f"FILE={path}: there is no folder {path.parent}; make it first")
    wanted = read_study(store, study)
    registrations = read_registrations(store, study)
    there, arm_of = finished_ids(store), arms(wanted)
    facts: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    num_rows = 0
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with naming(path):
        half = output.draft_of(path)
    try:
        with naming(path, instead_of=half), _writer(half, suffix) as writer:
            gathered: list[pa.Table] = []
            for run in wanted:
                if run.id not in there:
                    continue
                try:
                    finished = read_rows(store, run.id)
                except Damaged as damage:
                    damaged[run.id] = str(damage)
                    continue
                except PermissionError as error:
                    damaged[run.id] = str(unreadable(error))
                    continue
                if (
                    sum(table.num_rows for table in gathered) + finished.table.num_rows
                    > ROWS_A_GROUP
                ):
                    _write(writer, gathered)
                    gathered = []
                gathered.append(_with_arm(finished.table, arm_of[run.id]))
                num_rows += finished.table.num_rows
                facts.append(_to_plain(run.id, facts_of(finished, {})))
            _write(writer, gathered)
            failures = failures_of(store, wanted)
            if is_public:
                for fact in facts:
                    fact["provenance"] = {**fact["provenance"], "host": ""}
                failures = {run_id: _kind_of(text) for run_id, text in failures.items()}
                damaged = dict.fromkeys(damaged, "its rows cannot be read")
            header = {
                "format": FORMAT,
                "written_by": release(),
                "study": study,
                "wanted": [json.loads(runs.to_json(run)) for run in wanted],
                "ended": facts,
                "failures": failures,
                "damaged": damaged,
                "registrations": [asdict(one) for one in registrations],
            }
            text = json.dumps(header, separators=(",", ":"), allow_nan=False)
            if isinstance(writer, pq.ParquetWriter):
                writer.add_key_value_metadata(
                    {METADATA_KEY.decode(): text, DIGEST_KEY.decode(): digest_of(text.encode())}
                )
        output.publish(half, path)
    finally:
        half.unlink(missing_ok=True)
    ended = {fact["id"] for fact in facts}
    return Written(
        num_runs=len(facts),
        num_rows=num_rows,
        absent=tuple(run.id for run in wanted if run.id not in ended),
        damaged=damaged,
    )


def is_export(root: str | Path) -> bool:
    """Return True if `root` is an existing file, or ends in ".parquet" and is not a directory."""
    named_so = str(root).endswith(".parquet")
    if "://" in str(root):
        return str(root).partition("?")[0].endswith(".parquet")
    return Path(root).is_file() or (named_so and not Path(root).is_dir())


def open_export(path: str | Path) -> Exported:
    """Open an exported Parquet file; check the checksum of every page that is read.

    Columns that the file's release did not have are computed from the Runs.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not an export of a study.
        Newer: the export was written by a later release.
    """
    file = _opened(path)
    shown = without_secrets(str(path))
    header = _header(shown, file)
    try:
        return _exported(shown, file, header)
    except _NOT_AS_WRITTEN as error:
        raise ValueError(
            f"{shown}: {_brief(error)}. The file was not written by `study export`."
        ) from error


# Exceptions that reading a forged header or table can raise.
_NOT_AS_WRITTEN: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    pa.ArrowException,
)
_MAX_NAME: Final = 200  # characters; file systems allow 255 bytes
_MAX_COUNT: Final = 2**31 - 1  # counts are int32 columns


def _header(shown: str, file: pq.ParquetFile) -> dict[str, Any]:
    metadata = file.metadata.metadata or {}
    if METADATA_KEY not in metadata:
        raise ValueError(f"{shown}: a Parquet file, but not one that `study export` wrote")
    if metadata.get(DIGEST_KEY) != digest_of(metadata[METADATA_KEY]).encode():
        raise ValueError(f"{shown}: its metadata do not match their digest")
    try:
        header = dict(json.loads(metadata[METADATA_KEY]))
        form, by = header["format"], header.get("written_by", "")
    except _NOT_AS_WRITTEN as error:
        raise ValueError(f"{shown}: its metadata are no header of an export") from error
    if form not in FORMATS:
        raise Newer(shown, _brief(by), _brief(form))
    return header


def _exported(shown: str, file: pq.ParquetFile, header: Mapping[str, Any]) -> Exported:
    """Return the content of an export, which may be forged: check all values; raise _NOT_AS_WRITTEN."""
    study = header["study"]
    # The report is written to reports/<study>, so the name must not be a path.
    if not isinstance(study, str) or not is_study_name(study):
        raise ValueError(
            f"study={study!r} in its metadata: not a study name (letters, digits, '.', '_' and '-')"
        )
    wanted = tuple(runs.from_dict(plain) for plain in header["wanted"])
    by_id = {run.id: run for run in wanted}
    _expect(bool(wanted) and len(by_id) == len(wanted), "wanted: no Runs, or one of them twice")
    for run in wanted:
        _check_run(run)
    ended = dict(map(_from_plain, header["ended"]))
    _expect(len(ended) == len(header["ended"]), "ended: one Run twice")
    _expect(ended.keys() <= by_id.keys(), "ended: a Run that the study does not want")
    for facts in ended.values():
        _check_facts(facts)
    for name in ("failures", "damaged"):
        texts = header[name].items()
        _expect(all(_is_text(a) and _is_text(b.replace("\n", "")) for a, b in texts), name)
    evaluations: dict[str, Evaluations] = {}
    rows = ExportRows(
        shown,
        file,
        _groups(shown, file, by_id, ended, header["format"], evaluations),
        {run_id: fact.num_rows for run_id, fact in ended.items()},
        _registrations(header),
    )
    survey = Survey(facts=ended, evaluations=evaluations, damaged=header["damaged"])
    return Exported(
        study=study, wanted=wanted, failures=header["failures"], survey=survey, rows=rows
    )


def _groups(
    shown: str,
    file: pq.ParquetFile,
    by_id: Mapping[str, Run],
    ended: Mapping[str, Facts],
    form: str,
    evaluations: dict[str, Evaluations],
) -> tuple[tuple[str, ...], ...]:
    """Return the Run ids in each row group. Check every value of the table; fill `evaluations`."""
    forms = known_schemas()
    if form != FORMATS[0]:
        forms = [each.append(ARM_FIELD) for each in forms]
    if not any(file.schema_arrow.equals(each, check_metadata=False) for each in forms):
        raise ValueError("its columns are not those of a study's table")
    groups, left = [], list(ended)
    for index in range(file.num_row_groups):
        table = read_group(shown, file, index, file.schema_arrow.names)
        ends = np.cumsum([ended[run_id].num_rows for run_id in left])
        num_runs = int(np.searchsorted(ends, table.num_rows)) + 1
        ids, left = tuple(left[:num_runs]), left[num_runs:]
        num_rows = [ended[run_id].num_rows for run_id in ids]
        if why := schema.fault_in_rows(table, [by_id[run_id] for run_id in ids], num_rows):
            raise ValueError(why)
        epochs, steps = (table.column(name).to_numpy() for name in ("epoch", "step"))
        own = table.select([*set(FACTS_IN_ROWS) & set(table.column_names)])
        for run_id, last in zip(ids, ends, strict=False):
            facts, first = ended[run_id], last - ended[run_id].num_rows
            found = name_evaluations(epochs[first:last], steps[first:last], evaluations)
            expected = {name: getattr(facts, name) for name in own.column_names}
            same = facts.evaluations == found and own.slice(first, 1).to_pylist() == [expected]
            _expect(same, f"the rows of Run {run_id} are out of place")
        groups.append(ids)
    _expect(not left, "ended: Runs without rows")
    return tuple(groups)


FACTS_IN_ROWS: Final = ("outcome", *SIZES)


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise ValueError(otherwise)


def _is_text(value: Any) -> bool:
    """Return True for a string without control characters, which could overwrite a terminal's screen."""
    return isinstance(value, str) and value.isprintable()


def _brief(error: Any) -> str:
    return " ".join(str(error).split())[:_MAX_NAME] or type(error).__name__


def _check_run(run: Run) -> None:
    for name in (run.task, run.model):
        is_name = _is_text(name) and len(name) <= _MAX_NAME
        _expect(is_name and "/" not in run.task, f"Run.task={run.task!r}, Run.model={run.model!r}")
    counts = [coordinate.of(run) for coordinate in COORDINATES if coordinate.kind == "count"]
    recipe = [value for value in run.recipe.to_dict().values() if isinstance(value, int)]
    huge = [each for each in [*counts, *recipe] if isinstance(each, int) and each > _MAX_COUNT]
    _expect(not huge, f"Run {run.id}: a number is above {_MAX_COUNT:,}")
    if run.source is not None:
        _check_run(run.source)


def _check_facts(facts: Facts) -> None:
    _expect(facts.outcome in (schema.FINISHED, schema.DIVERGED), f"outcome={facts.outcome!r}")
    _expect(type(facts.num_rows) is int and 1 <= facts.num_rows <= _MAX_COUNT, "num_rows")
    packages = facts.provenance["packages"].items()
    _expect(all(_is_text(a) and _is_text(b) for a, b in packages), "packages")
    ids = facts.provenance.get("trained_together", [])
    _expect(isinstance(ids, list) and all(map(_is_text, ids)), "trained_together")
    for name, kind in get_type_hints(Provenance).items():
        value = facts.provenance.get(name)
        is_checked = name in ("packages", "trained_together")
        is_right = value is None or is_checked or isinstance(value, kind)
        _expect(is_right and (not isinstance(value, str) or _is_text(value)), f"{name}={value!r}")


def _registrations(header: Mapping[str, Any]) -> tuple[Registration, ...] | None:
    # None means unknown: older files do not contain registrations.
    if "registrations" not in header:
        return None
    found = []
    for plain in header["registrations"]:
        one = Registration(**{**plain, "run_ids": tuple(plain["run_ids"])})
        texts = (one.registered_at, one.terms.get("code", ""), *one.run_ids)
        _expect(all(map(_is_text, texts)) and isinstance(one.is_late, bool), "registrations")
        # Raises for numbers that are infinite, NaN or too large for a float.
        canonical_json(json.loads(canonical_json(one.terms), parse_int=float))
        found.append(one)
    return tuple(found)


def failures_of(store: Store, wanted: Iterable[Run]) -> dict[str, str]:
    """Return the reasons of the wanted Runs' final failures (without those to retry), by id."""
    ids = {run.id for run in wanted}
    return {
        run_id: f"{failure.kind}: {failure.error}"
        for run_id, failure in read_failures(store).items()
        if failure.final and run_id in ids
    }


def _kind_of(failure: str) -> str:
    """Return a failure without its message: the kind and the exception's name, as in `error: OSError`."""
    kind = failure.partition(":")[0]
    name = re.match(r"[\w.]+", last_line(failure))
    return f"{kind}: {name[0]}" if name else kind


# Keys in export files of fields that were renamed.
_KEY_OF: Final = {"evaluations": "schedule"}


def _to_plain(run_id: str, facts: Facts) -> dict[str, Any]:
    plain = {_KEY_OF.get(name, name): value for name, value in asdict(facts).items()}
    return {"id": run_id} | plain


def _from_plain(plain: Mapping[str, Any]) -> tuple[str, Facts]:
    # Fields that are missing in an older file get their defaults, which mean "not recorded".
    keys = {field.name: _KEY_OF.get(field.name, field.name) for field in fields(Facts)}
    named = {name: plain[key] for name, key in keys.items() if key in plain}
    return plain["id"], Facts(**named)


def _opened(path: str | Path) -> pq.ParquetFile:
    source: Any = open_uri(str(path)) if "://" in str(path) else path
    try:
        # About 60,000 Runs reach PyArrow's default limit of 100 MB for a string.
        return pq.ParquetFile(
            source, page_checksum_verification=True, thrift_string_size_limit=2**31 - 1
        )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        shown = without_secrets(str(path))
        raise ValueError(f"{shown}: not a whole Parquet file ({error})") from error


def _with_arm(table: pa.Table, arm: str) -> pa.Table:
    indices = pa.repeat(pa.scalar(0, pa.int32()), table.num_rows)
    column = pa.DictionaryArray.from_arrays(indices, pa.array([arm], pa.string()))
    return table.append_column(ARM_FIELD, column)


def _writer(path: Path, suffix: str) -> pq.ParquetWriter | csv.CSVWriter:
    if suffix == CSV:
        return csv.CSVWriter(str(path), _PLAIN)
    return pq.ParquetWriter(
        path,
        COLUMNS,
        compression="zstd",
        compression_level=9,
        write_page_checksum=True,
        store_schema=True,
    )


def _write(writer: pq.ParquetWriter | csv.CSVWriter, gathered: list[pa.Table]) -> None:
    if not gathered:
        return
    table = pa.concat_tables(gathered).unify_dictionaries()
    if isinstance(writer, csv.CSVWriter):
        for index, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type):
                texts = map(output.without_formula, column.chunk(0).dictionary.to_pylist())
                safe = pa.array(texts, pa.string())
                chunks = [pa.DictionaryArray.from_arrays(c.indices, safe) for c in column.chunks]
                table = table.set_column(index, table.field(index), pa.chunked_array(chunks))
        writer.write_table(table.cast(_PLAIN))
    else:
        writer.write_table(table, row_group_size=table.num_rows)


FOLDER: Final = Path(__file__).parents[1] / "results"


def kept_path(study: str) -> Path | None:
    """Return the path of this study's bundled export, or None."""
    return _file(f"{study}.parquet") if study in kept_names() else None


def is_kept(rows: object, study: str) -> bool:
    """Return True if `rows` come from this study's bundled export."""
    return isinstance(rows, ExportRows) and rows.path == str(kept_path(study))


def kept_names() -> tuple[str, ...]:
    """Return the names of studies with a bundled export."""
    # Other tables have a dot in their names, such as reduced.disagreement.parquet.
    return tuple(sorted(path.stem for path in FOLDER.glob("*.parquet") if "." not in path.stem))


def kept_verdicts(study: str, rules: int) -> pd.DataFrame | None:
    """Return this study's bundled verdicts by version `rules` of RULES, as a report's table, or None."""
    path = _file(verdicts_name(study, rules))
    return None if path is None else pd.read_csv(path)


def verdicts_name(study: str, rules: int) -> str:
    """Return the file name of verdicts by version `rules` of RULES."""
    return f"{study}.verdicts.csv" if rules == 1 else f"{study}.verdicts.{rules}.csv"


def kept_disagreement(study: str) -> pd.DataFrame | None:
    """Return this study's bundled `surfaces.disagreement`, one line per cell, or None."""
    path = _file(f"{study}.disagreement.parquet")
    return None if path is None else pd.read_parquet(path)


def kept_bias_variance(study: str) -> pd.DataFrame | None:
    """Return this study's bundled `surfaces.bias_variance`, one line per cell, or None."""
    path = _file(f"{study}.bias_variance.parquet")
    return None if path is None else pd.read_parquet(path)


def _file(name: str) -> Path | None:
    path = FOLDER / name
    return path if path.is_file() else None
