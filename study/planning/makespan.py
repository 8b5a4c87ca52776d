"""How long some workers take for Runs that wait for each other.

Owns the same order as the queue of a launch: the longest path of Runs first. Pure arithmetic.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping

from study.run import Run


def makespan(
    runs: Mapping[str, Run], left: Mapping[str, float], running: Collection[str], num_workers: int
) -> float:
    """Seconds until workers that take the longest path of Runs first have ended all that are `left`.

    `runs`: each start before what needs it; `left`: seconds by id; `running`: those that have a worker.
    """
    path = dict(left)
    waiting: dict[str, list[str]] = {}
    for run_id in reversed(list(runs)):
        source = runs[run_id].source
        if run_id in left and source is not None and source.id in left:
            path[source.id] = max(path[source.id], left[source.id] + path[run_id])
            waiting.setdefault(source.id, []).append(run_id)
    held = {each for those in waiting.values() for each in those}
    busy = [(left[run_id], run_id) for run_id in running if run_id in left]
    ready = [(-path[i], i) for i in left if i not in held and i not in running]
    heapq.heapify(busy)
    heapq.heapify(ready)
    now = 0.0
    while busy or ready:
        while ready and len(busy) < max(num_workers, 1):
            run_id = heapq.heappop(ready)[1]
            heapq.heappush(busy, (now + left[run_id], run_id))
        now, run_id = heapq.heappop(busy)
        for each in waiting.get(run_id, ()):
            heapq.heappush(ready, (-path[each], each))
    return now
