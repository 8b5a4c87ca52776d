"""Write a study to one Parquet or CSV file, and find the bundled exports."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from analysis.load import output
from analysis.load.arms import arms
from analysis.load.cells import ARM
from analysis.load.rows import (
    Evaluations,
    ExportRows,
    Facts,
    Survey,
    facts_of,
    name_evaluations,
    read_group,
)
from study import run as runs
from study.fields import digest_of
from study.run import Run
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
from study.store.provenance import release
from study.store.schema import known_schemas
from study.store.store import open_uri, without_secrets
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

# Rows in a group of whole Runs, such as 250 Runs of 4,000 epochs: about 250 MB in memory.
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
    """The result of `export`; `absent`: ids of wanted Runs without rows, `damaged`: reasons, by id."""

    num_runs: int
    num_rows: int
    absent: tuple[str, ...]
    damaged: Mapping[str, str]

    @property
    def remarks(self) -> list[str]:
        """Return sentences on what the file lacks."""
        remarks = [f"{run_id} is not in the file: {why}" for run_id, why in self.damaged.items()]
        if self.absent:
            num_absent = len(self.absent)
            remarks.insert(0, f"{num_absent} Runs have no rows yet; they are not in the file")
        return remarks


def export(store: Store, study: str, path: str | Path) -> Written:
    """Write all rows of a study to a local file: Parquet (zstd), or CSV if its name ends in ".csv".

    Both contain the table of `schema.ROWS` with each Run's arm. Parquet metadata also contain the wanted
    Runs, their states, the registrations and the provenance, so `load.open_study` restores the study. CSV
    has no checksum; missing values are empty.

    Memory is bounded by one row group (`ROWS_A_GROUP`). Every row file's checksum is checked; damaged
    files are left out and reported. The export is written atomically.

    Raises:
        FileNotFoundError: the study is missing.
        ValueError: the file's name has another ending.
        Damaged, Newer: the registrations cannot be read.
        OSError: the file cannot be written; the message has its path.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix not in (*PARQUET, CSV):
        raise ValueError(
            f"FILE={path.name}: cannot write {path.suffix} files; choose a name that ends in .parquet "
            "or .csv"
        )
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
        with naming(path, instead_of=half), _writer(half, path.suffix) as writer:
            gathered: list[pa.Table] = []
            for run in wanted:
                if run.id not in there:
                    continue
                try:
                    finished = read_rows(store, run.id)
                except Damaged as damage:
                    damaged[run.id] = str(damage)
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
            header = {
                "format": FORMAT,
                "written_by": release(),
                "study": study,
                "wanted": [json.loads(runs.to_json(run)) for run in wanted],
                "ended": facts,
                "failures": failures_of(store),
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
    """Open an exported file; every page that is read is checked against its checksum.

    Columns added in later releases are computed from its Runs.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not an export of a study.
        Newer: the export was written by a later release.
    """
    file = _opened(path)
    path = without_secrets(str(path))
    metadata = file.metadata.metadata or {}
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path}: a Parquet file, but not one that `study export` wrote")
    if metadata.get(DIGEST_KEY) != digest_of(metadata[METADATA_KEY]).encode():
        raise ValueError(f"{path}: its metadata do not match their digest")
    header = json.loads(metadata[METADATA_KEY])
    if header["format"] not in FORMATS:
        raise Newer(str(path), header.get("written_by", ""), header["format"])
    if not isinstance(header["study"], str) or not is_study_name(header["study"]):
        # The report is written to reports/<study>, so the name must not contain another path.
        raise ValueError(
            f"{path}: study={header['study']!r} in its metadata: not a study name (letters, digits, "
            "'.', '_' and '-'). The file was not written by `study export`."
        )
    forms = known_schemas()
    if header["format"] != FORMATS[0]:
        forms = [form.append(ARM_FIELD) for form in forms]
    if not any(file.schema_arrow.equals(form, check_metadata=False) for form in forms):
        raise ValueError(f"{path}: its columns are not those of a study's table")
    ended = dict(map(_from_plain, header["ended"]))
    num_rows = {run_id: fact.num_rows for run_id, fact in ended.items()}
    evaluations: dict[str, Evaluations] = {}
    groups = []
    order = iter(ended)
    for index in range(file.num_row_groups):
        table = read_group(str(path), file, index, ["epoch", "step"])
        epochs, steps = (table.column(name).to_numpy() for name in ("epoch", "step"))
        ids, first = [], 0
        while first < table.num_rows:
            run_id = next(order)
            last = first + num_rows[run_id]
            found = name_evaluations(epochs[first:last], steps[first:last], evaluations)
            if found != ended[run_id].evaluations:
                raise ValueError(f"{path}: the rows of Run {run_id} are out of place")
            ids.append(run_id)
            first = last
        groups.append(tuple(ids))
    return Exported(
        study=header["study"],
        wanted=tuple(runs.from_json(json.dumps(plain)) for plain in header["wanted"]),
        failures=header["failures"],
        survey=Survey(facts=ended, evaluations=evaluations, damaged=header["damaged"]),
        rows=ExportRows(str(path), file, tuple(groups), num_rows, _registrations(header)),
    )


def _registrations(header: Mapping[str, Any]) -> tuple[Registration, ...] | None:
    # Older files do not contain registrations: None means unknown.
    if "registrations" not in header:
        return None
    return tuple(
        Registration(**{**one, "run_ids": tuple(one["run_ids"])}) for one in header["registrations"]
    )


def failures_of(store: Store) -> dict[str, str]:
    """Return why Runs failed, by id, without Runs that will be retried."""
    return {
        run_id: f"{failure.kind}: {failure.error}"
        for run_id, failure in read_failures(store).items()
        if failure.final
    }


# Keys in the files stay the same if a field is renamed.
_KEY_OF: Final = {"evaluations": "schedule"}


def _to_plain(run_id: str, facts: Facts) -> dict[str, Any]:
    plain = {_KEY_OF.get(name, name): value for name, value in asdict(facts).items()}
    return {"id": run_id} | plain


def _from_plain(plain: Mapping[str, Any]) -> tuple[str, Facts]:
    # Fields that are newer than the file get their defaults, which mean "not recorded".
    keys = {field.name: _KEY_OF.get(field.name, field.name) for field in fields(Facts)}
    named = {name: plain[key] for name, key in keys.items() if key in plain}
    return plain["id"], Facts(**named)


def _opened(path: str | Path) -> pq.ParquetFile:
    source: Any = open_uri(str(path)) if "://" in str(path) else path
    try:
        # PyArrow's default limit of 100 MB for a string is reached at about 60,000 Runs.
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
        path, COLUMNS, compression="zstd", write_page_checksum=True, store_schema=True
    )


def _write(writer: pq.ParquetWriter | csv.CSVWriter, gathered: list[pa.Table]) -> None:
    if not gathered:
        return
    table = pa.concat_tables(gathered).unify_dictionaries()
    if isinstance(writer, csv.CSVWriter):
        writer.write_table(table.cast(_PLAIN))
    else:
        writer.write_table(table, row_group_size=table.num_rows)


FOLDER: Final = Path(__file__).parents[1] / "results"


def kept_path(study: str) -> Path | None:
    """Return the bundled export of this study, or None."""
    return _file(f"{study}.parquet") if study in kept_names() else None


def is_kept(rows: object, study: str) -> bool:
    """Return True if these rows are those of the bundled export of this study."""
    return isinstance(rows, ExportRows) and rows.path == str(kept_path(study))


def kept_names() -> tuple[str, ...]:
    """Return the studies with bundled results."""
    return tuple(
        sorted(p.name.removesuffix(".verdicts.csv") for p in FOLDER.glob("*.verdicts.csv"))
    )


def kept_verdicts(study: str, rules: int) -> pd.DataFrame | None:
    """Return the bundled verdicts on this study by these RULES, as in a report's table, or None."""
    path = _file(verdicts_name(study, rules))
    return None if path is None else pd.read_csv(path)


def verdicts_name(study: str, rules: int) -> str:
    """Return the name of the file of verdicts by these RULES."""
    return f"{study}.verdicts.csv" if rules == 1 else f"{study}.verdicts.{rules}.csv"


def kept_disagreement(study: str) -> pd.DataFrame | None:
    """Return the bundled `surfaces.disagreement` of this study, one line for each cell, or None."""
    path = _file(f"{study}.disagreement.parquet")
    return None if path is None else pd.read_parquet(path)


def _file(name: str) -> Path | None:
    path = FOLDER / name
    return path if path.is_file() else None
