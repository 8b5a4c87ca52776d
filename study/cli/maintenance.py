"""Implement `study verify`, `study compact` and `study tidy`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from study.cli.arguments import Data, OptionalSpaceName, store_named, study_of
from study.cli.status import MAX_LISTED, bytes_text
from study.command_line import OK, SOME_FAILED, Root, switch
from study.launching.lease import LeaseHeld, acquire
from study.launching.temporary_files import leftovers
from study.messages import UserError
from study.planning.integrity import Checked, check, not_needed
from study.store import Store, compaction, layout
from study.store.atomic import Unreadable
from study.store.store import store_command
from study.store.unfinished import sweep


def verify(
    root: Root,
    data: Data,
    space_name: OptionalSpaceName = None,
    everything: Annotated[bool, switch("--all", "the whole store")] = False,
    repair: Annotated[
        bool, switch("--repair", "quarantine it: `study run` makes it again")
    ] = False,
) -> int:
    """Read and check every object, and name what is damaged."""
    store = store_named(root)
    if everything == (space_name is not None):
        raise UserError("give a SPACE, or --all for the whole store")
    _refuse_absent(store)
    named = None if space_name is None else study_of(space_name, store)
    name, runs = (None, ()) if named is None else (named.name, named.runs)
    if repair:
        with _holding_lease(store):
            found = check(store, name, runs)
            num_left = _repair(store, found)
    else:
        found = check(store, name, runs)
        num_left = len(found.damaged)
        for each in found.damaged.values():
            print(f"  {each}")
    for text in found.newer.values():
        print(f"  {text}")
    for path in found.foreign:
        print(f"  {path}: not an object of a store")
    if found.unsealed:
        print(
            f"  {len(found.unsealed)} rows files, written by an earlier release, have no checksum of "
            "the whole file (the parts that were read match their digests):"
        )
        print("\n".join(f"    {path}" for path in found.unsealed[:MAX_LISTED]))
    if found.compacted:
        print(f"  {found.compacted}")
    print(_summary(store, found))
    if num_left and not repair:
        again = store_command("verify", space_name or "--all", "--repair", root=root)
        print(f"  to quarantine it: {again}. The next `study run` that needs it creates it again")
    if num_left or found.newer:
        return SOME_FAILED
    if everything:
        _print_surplus(store)
    return OK


def compact(root: Root, data: Data) -> int:
    """Copy finished rows into a few Parquet files, which are faster to read."""
    store = store_named(root)
    _refuse_absent(store)
    with _holding_lease(store):
        made = compaction.compact(store)
    if made is None:
        print(f"{store.shown}: all finished Runs are compacted already")
        return OK
    for damaged in made.damaged:
        print(f"  {damaged}")
    print(
        f"{store.shown}: compacted {made.num_new:,} Runs, now {made.num_runs:,} in all, "
        f"{bytes_text(made.num_bytes)}"
    )
    return SOME_FAILED if made.damaged else OK


def tidy(root: Root, data: Data) -> int:
    """Remove files that nothing needs, and leftovers of drivers."""
    store = store_named(root)
    _refuse_absent(store)
    with _holding_lease(store):
        surplus = not_needed(store)
        for path in surplus:
            store.remove(path)
            print(f"  removed {path}")
        for path in sweep(store):
            print(f"  removed {path}")
    for local in leftovers():
        if local.is_dir() and not local.is_symlink():
            shutil.rmtree(local)
        else:
            local.unlink()
        print(f"  removed {local}")
    num_bytes = sum(surplus.values())
    print(f"{store.shown}: removed {len(surplus)} unused objects, {bytes_text(num_bytes)}")
    return OK


@contextmanager
def _holding_lease(store: Store) -> Iterator[None]:
    """Hold the lease during the block, so that no driver works while objects are moved or removed."""
    try:
        with acquire(store.root):
            yield
    except LeaseHeld as held:
        raise UserError(str(held)) from held


def _refuse_absent(store: Store) -> None:
    if store.local_path("") is not None and not Path(store.base).is_dir():
        raise UserError(f"root={store.shown}: there is no store")


def _repair(store: Store, found: Checked) -> int:
    """Quarantine damaged objects; return how many could not be moved."""
    num_left = 0
    for path, damaged in found.damaged.items():
        if isinstance(damaged, Unreadable):
            print(f"  {damaged}")
            num_left += 1
            continue
        place = store.quarantine(path)
        num_left += place is None
        what = "it cannot be moved" if place is None else f"moved to {place}"
        lost = path.startswith(f"{layout.REGISTRATIONS}/")
        hint = "; register the study again (the registration will be late)" if lost else ""
        print(f"  {damaged}; {what}{hint}")
    return num_left


def _summary(store: Store, found: Checked) -> str:
    objects = "1 object" if found.num_objects == 1 else f"{found.num_objects:,} objects"
    return (
        f"{store.shown}: {objects}, {bytes_text(found.num_bytes)}, read and checked: "
        f"{len(found.damaged)} damaged"
    )


def _print_surplus(store: Store) -> None:
    """Print the files that `tidy` would remove, and count quarantined files."""
    surplus = not_needed(store)
    local = leftovers()
    if surplus:
        print(f"  {len(surplus)} are unused ({bytes_text(sum(surplus.values()))}):")
        print("\n".join(f"    {path}" for path in [*surplus][:MAX_LISTED]))
    if local:
        print(f"  killed drivers have left {', '.join(map(str, local))}")
    if surplus or local:
        print(f"  to remove them: {store_command('tidy', root=store.root)}")
    aside = store.quarantined()
    if aside:
        print(f"  {layout.DAMAGED}/ contains {len(aside)} quarantined files")
