"""`study show ID`: everything that the store has of one Run."""

from __future__ import annotations

import argparse

from study.command.exits import OK
from study.command.opened import store_of
from study.messages import UserError
from study.planning.inventory import Inventory, take_inventory
from study.run import Run, describe, to_json
from study.store import (
    Store,
    find_unfinished,
    finished_ids,
    predictions_path,
    read_failure,
    read_head,
    read_rows,
    read_study,
    rows_path,
    study_names,
    weights_path,
)
from study.store.schema import DONE, rows_of


def show(args: argparse.Namespace) -> int:
    """Says everything that the store has of one Run, given by its id or the beginning of it."""
    store = store_of(args)
    run = _run_named(args.id, store)
    chain = [run]
    while chain[0].source is not None:
        chain.insert(0, chain[0].source)
    found = take_inventory(chain, store)
    lines = [f"{run.id}  {describe(run)}", f"  state    {_state(found, run)}"]
    if run.source is not None:
        source = f"{run.source.id}  {describe(run.source)} ({_state(found, run.source)})"
        lines.append(f"  start    {source}")
    lines += [f"  fields   {to_json(run)}"]
    unfinished = find_unfinished(store, run.id)
    paths = sorted(unfinished.paths.values()) if unfinished is not None else []
    if found.states[run.id] == DONE:
        ended = read_rows(store, run.id)
        made_by = ended.provenance
        last = rows_of(ended.table)[-1]
        lines += [
            f"  last row epoch {last.epoch:g}, step {last.step}: train error {last.train_error:.4f}, "
            f"test error {last.test_error:.4f}, test loss {last.test_loss:.4f}",
            f"  made by  {made_by.code_version} (TRAINER {made_by.trainer}) on {made_by.device} "
            f"({made_by.host}), {made_by.began_at} to {made_by.ended_at}, "
            f"resumed {made_by.num_resumes} times",
            f"  packages {', '.join(f'{name} {v}' for name, v in made_by.packages.items())}",
        ]
        paths.insert(0, rows_path(run.id))
        if made_by.weights_digest is not None:
            paths.insert(1, weights_path(run.id, made_by.weights_digest))
        if made_by.predictions_digest is not None:
            paths.insert(1, predictions_path(run.id, made_by.predictions_digest))
    failure = read_failure(store, run.id)
    if failure is not None:
        lines += [f"  failure  after {failure.tries} tries, {failure.at}:", failure.error.rstrip()]
    lines += [f"  file     {path}" for path in paths if store.exists(path)]
    print("\n".join(lines))
    return OK


def _state(found: Inventory, run: Run) -> str:
    cause = found.causes.get(run.id)
    return found.states[run.id] + (f": {cause}" if cause else "")


def _run_named(given: str, store: Store) -> Run:
    known = {run.id: run for name in study_names(store) for run in read_study(store, name)}
    ids = sorted(i for i in {*known, *finished_ids(store)} if i.startswith(given))
    if len(ids) != 1:
        which = f"{len(ids)} Runs, among them {', '.join(ids[:5])}" if ids else "no Run"
        raise UserError(f"ID={given}: {store.shown} has {which} whose id begins so")
    return known[ids[0]] if ids[0] in known else read_head(store, ids[0]).run
