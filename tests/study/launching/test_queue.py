"""The queue: which Run may start, the order, and the consequences of a failure."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.grid import with_starts
from study.launching.queue import RunQueue
from study.messages import duration
from study.run import Recipe, Run
from study.store.schema import DONE, FAILED, RUNNING, START_FAILED, WAITING

RECIPE = Recipe(num_epochs=1)


def run(seed: int, start: Run | None = None, together: int = 1) -> Run:
    recipe = replace(RECIPE, seeds_together=together)
    return Run(
        task="digits", size=10, model="resnet18", width=4, recipe=recipe, seed=seed, start=start
    )


@st.composite
def forests(draw: st.DrawFn) -> list[Run]:
    """Draw Runs, some of which start from others in chains of any depth."""
    runs: list[Run] = []
    together = draw(st.sampled_from([1, 3]))
    for seed in range(draw(st.integers(1, 12))):
        start = draw(st.sampled_from([None, *runs]))
        runs.append(run(seed, start, together))
    return with_starts(draw(st.permutations(runs)))


def queue_of(*runs: Run, **options: Any) -> RunQueue:
    """Return the queue of these Runs and their starts, each with cost 1 by default."""
    together = with_starts(runs)
    cost = {each.id: 1.0 for each in together}
    return RunQueue(together, **({"done": (), "cost": cost} | options))


def test_queue_block_is_handed_out_once_all_its_starts_are_done() -> None:
    sources = [run(seed) for seed in (0, 1, 3)]
    cells = [run(source.seed, source, together=3) for source in sources]
    queue = queue_of(*cells)
    assert {queue.next() for _ in range(3)} == {(source,) for source in sources}
    queue.finish(sources[0].id)
    queue.finish(sources[2].id)
    assert [queue.next(), queue.next()] == [(cells[2],), ()], "seed 1 of the first block is missing"
    queue.fail(sources[1].id)
    assert [queue.next(), queue.next()] == [(cells[0],), ()], "seed 1 has failed"
    queue.again(cells[0].id)
    assert queue.next() == (cells[0],)


def test_queue_order_is_longest_chain_then_longest_run() -> None:
    source, short, long = run(0), run(2), run(3)
    cell = run(1, source)
    cost = {source.id: 1.0, cell.id: 5.0, short.id: 2.0, long.id: 4.0}
    queue = queue_of(short, long, cell, cost=cost)
    assert [queue.next(), queue.next(), queue.next()] == [(source,), (long,), (short,)]


def test_queue_failed_start_fails_only_its_cells() -> None:
    source, alone = run(0), run(9)
    middle = run(1, source)
    last = run(2, middle)
    queue = queue_of(last, run(3, source), alone)
    assert {queue.next(), queue.next()} == {(source,), (alone,)}
    queue.fail(source.id)
    assert queue.state[source.id] == FAILED
    assert [queue.state[each.id] for each in (middle, last)] == [START_FAILED, START_FAILED]
    assert queue.state[alone.id] == RUNNING
    assert not queue.is_over
    queue.finish(alone.id)
    assert queue.is_over


def test_queue_diverged_or_earlier_failed_start_fails_its_cells() -> None:
    source, diverged, failed = run(0), run(5), run(7)
    cells = [run(1, source), run(6, diverged), run(8, failed)]
    options = {"done": {diverged.id}, "unusable": {diverged.id}, "failed": {failed.id}}
    queue = queue_of(*cells, **options)
    assert [queue.next(), queue.next()] == [(source,), ()]
    queue.finish(source.id, usable=False)
    assert queue.next() == () and queue.is_over
    assert queue.counts() == {DONE: 2, FAILED: 1, START_FAILED: 3}


def test_queue_reopened_start_is_trained_before_its_cells() -> None:
    source = run(0)
    first, second = run(1, source), run(2, source)
    queue = queue_of(first, second, done={source.id})
    assert queue.next() == (first,)
    queue.reopen(source.id)
    queue.again(first.id)
    assert [queue.next(), queue.next()] == [(source,), ()]
    queue.finish(source.id)
    assert [queue.next(), queue.next(), queue.next()] == [(first,), (second,), ()]


@settings(max_examples=200, deadline=None)
@given(forests(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_queue_every_run_ends_once_after_its_start(
    runs: list[Run], chance: random.Random, slots: int
) -> None:
    """Simulate a study on some slots: Runs fail or stop half-way, and weights are lost."""
    done = {each.id for each in runs if chance.random() < 0.2}
    failed = {each.id for each in runs if chance.random() < 0.1} - done
    cost = {each.id: chance.random() for each in runs}
    queue = RunQueue(runs, done=done, failed=failed, cost=cost)
    in_flight: list[tuple[float, int, Run]] = []
    clock, handed_out = 0.0, dict.fromkeys(queue.runs, 0)
    gives_up, ticket = 20, count()
    while not queue.is_over:
        while len(in_flight) < slots and (block := queue.next()):
            assert len({each.block for each in block}) == 1
            for each in block:
                assert each.source is None or queue.state[each.source.id] == DONE
                assert each.id not in failed | done
                handed_out[each.id] += 1
                heapq.heappush(in_flight, (clock + cost[each.id], next(ticket), each))
        assert in_flight, "something waits, nothing runs, and nothing is given out"
        clock, _, ended = heapq.heappop(in_flight)
        luck = chance.random() if gives_up else 1.0
        gives_up -= gives_up > 0
        if luck < 0.1:
            queue.fail(ended.id)
        elif luck < 0.2:
            handed_out[ended.id] -= 1
            queue.again(ended.id)
        elif luck < 0.3 and ended.source is not None:
            if queue.state[ended.source.id] == DONE:
                handed_out[ended.source.id] = 0
                queue.reopen(ended.source.id)
                done.discard(ended.source.id)
            handed_out[ended.id] -= 1
            queue.again(ended.id)
        else:
            queue.finish(ended.id)
    assert max(handed_out.values()) <= 1
    assert queue.remaining_cost() == 0
    for each in runs:
        state = queue.state[each.id]
        assert state not in (WAITING, RUNNING)
        if state == START_FAILED:
            assert each.source is not None
            assert queue.state[each.source.id] in (FAILED, START_FAILED)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min"), (185, "3 min 5 s"), (7_260, "2 h 1 min"), (200_000, "2 d 7 h")],
)
def test_duration_has_the_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
