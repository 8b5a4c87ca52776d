"""`study status SPACE`: how far a study is, once or again and again.

Owns when it looks again and how its answer becomes an exit status. Reads heads alone: whether rows are
whole is for `study verify` to say.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Final

from study.command.exits import OK, SOME_FAILED
from study.command.opened import Named, store_of, study_of
from study.command.texts import status_plain, status_text
from study.launching.signals import INTERRUPTED_STATUS
from study.planning.inventory import HeadSummary, Inventory, summarise_heads, take_inventory
from study.store import Store
from study.store.schema import ABSENT, FAILED, PARTIAL, RUNNING, START_FAILED

SECONDS_BETWEEN_LOOKS: Final = 5.0
CLEAR: Final = "\x1b[H\x1b[2J"  # a terminal


def status(args: argparse.Namespace) -> int:
    """Says in which state the study's Runs are; with --watch, again and again until none is left to do."""
    store = store_of(args)
    named = study_of(args.space, store)
    found, heads = _looked_at(named, store)
    if args.json:
        print(json.dumps(status_plain(named.name, found, heads), indent=1))
    elif args.watch:
        found = _watch(named, store, found, heads)
    else:
        print(status_text(named.name, found, heads))
    if not args.exit_code:
        return OK
    if found.ids(RUNNING, PARTIAL, ABSENT):
        return INTERRUPTED_STATUS
    return SOME_FAILED if found.ids(FAILED, START_FAILED) else OK


def _watch(named: Named, store: Store, found: Inventory, heads: HeadSummary) -> Inventory:
    """Until nothing is left, or Ctrl-C; returns how the study stood then."""
    shown = ""
    try:
        while True:
            text = status_text(named.name, found, heads)
            if sys.stdout.isatty():
                print(f"{CLEAR}{text}", flush=True)
            elif text != shown:
                print(text, flush=True)
            shown = text
            if not found.ids(RUNNING, PARTIAL, ABSENT):
                return found
            time.sleep(SECONDS_BETWEEN_LOOKS)
            found, heads = _looked_at(named, store)
    except KeyboardInterrupt:
        return found


def _looked_at(named: Named, store: Store) -> tuple[Inventory, HeadSummary]:
    wanted = named.space.with_predictions if named.space is not None else ()
    found = take_inventory(named.runs, store, keep_predictions=wanted)
    return found, summarise_heads(found, store)
