"""Ray Tune: one Tuner, one trial a Run, and the store as the only truth.

Owns resources, the Tuner, and how a wish to stop reaches trials on other nodes. Nothing of Tune is kept
or restored: its files lie in a temporary folder, and what is done
is counted in the store. Trials write their rows themselves; Tune hears of them now and then.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import ray
from ray import tune

from study.launching.attempt import MAX_TRIES, attempt
from study.launching.interrupt import StopFlag, stop_on_signals
from study.launching.leftovers import TUNE_PREFIX
from study.launching.means import LOCAL, Means
from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.launching.ray_cluster import connected, refuse_other_nodes
from study.launching.ray_hooks import (
    Leave,
    RunSearcher,
    Watch,
    WorkersMayStart,
    report_now_and_then,
    stop_question,
)
from study.launching.resources import num_slots, resources_text, trial_resources
from study.launching.screen import Screen
from study.messages import UserError
from study.run import from_json
from study.store import Store, open_store

_TUNE: Final = {
    # Loggers write a file a trial and halve the number of reports that Tune can take.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Signals are ours; Tune's own handler would end the trials where they stand.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Errors are in the store; here they would be walls of text.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # a table even where verbose is 0
    # Snapshots are never restored.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # bounded by the searcher
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def launch(
    queue: RunQueue,
    store: Store,
    means: Means,
    *,
    progress: Progress,
    screen: Screen,
    keep: Collection[str],
    keep_predictions: Collection[str],
    must_stop: Callable[[], bool],
) -> Mapping[str, str]:
    """Ends every Run of the queue on a cluster, unless it is asked to stop before.

    `keep`, `keep_predictions`: ids of Runs whose weights and predictions are kept. `must_stop` is asked
    now and then, beside the process's signals; then running trials have `means.grace_seconds` to write a
    checkpoint. Returns why Runs failed of which the store could not take note, by id. Raises UserError
    where there is no cluster, its nodes have other versions, or this machine cannot hold a single trial,
    and RayNotStarted.
    """
    assert means.address is not None
    for name, value in _TUNE.items():
        os.environ.setdefault(name, value)
    with (
        connected(means.address),
        tempfile.TemporaryDirectory(prefix=f"{TUNE_PREFIX}{os.getpid()}-") as scratch,
    ):
        refuse_other_nodes(store.local_path(""))
        claim = trial_resources(
            ray.cluster_resources(),
            gpus_per_trial=means.gpus_per_trial,
            cpus_per_trial=means.cpus_per_trial,
        )
        _check_room(claim, means.address)
        flag = _flag()
        with stop_on_signals(means.resume_hint) as request:
            watch = Watch(progress, screen, store, request, must_stop, flag, means.grace_seconds)
            screen.follow(progress.look)
            searcher = RunSearcher(
                queue,
                store,
                watch,
                keep,
                keep_predictions,
                claim,
                means.max_concurrent,
                may_grow=means.address != LOCAL,
            )
            tuner = tune.Tuner(
                tune.with_resources(_trainable(store, means, claim, flag), dict(claim)),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=WorkersMayStart(),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="study",
                    verbose=0,
                    callbacks=[watch],
                    failure_config=tune.FailureConfig(max_failures=MAX_TRIES - 1),
                ),
            )
            with suppress(Leave):
                tuner.fit()
            screen.end()
    if queue.is_over:
        searcher.outcomes.note_start_failed()
    return searcher.outcomes.unnoted


def _check_room(claim: Mapping[str, float], address: str) -> None:
    cluster = ray.cluster_resources()
    if num_slots(cluster, claim) == 0 and address == LOCAL:
        has = {name: cluster.get(name.upper(), 0.0) for name in claim}
        raise UserError(
            f"a trial claims {resources_text(claim)}, and this machine has {resources_text(has)}: "
            "lower --gpus-per-trial or --cpus-per-trial"
        )


def _flag() -> Any:
    """An actor on this node: whoever can reach it can ask whether to stop."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(StopFlag)
    return actor.remote()


def _trainable(
    store: Store, means: Means, claim: Mapping[str, float], flag: Any
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    root, lease_number = store.root, store.lease_number

    def trial(config: dict[str, Any]) -> dict[str, Any]:
        # Clusters of tests declare GPUs that are not there.
        device = os.environ.get("STUDY_DEVICE") or ("cuda" if claim.get("gpu") else "cpu")
        ended = attempt(
            from_json(config["run"]),
            replace(open_store(root), lease_number=lease_number),
            means.of_trial(claim, device=device),
            keep_weights=config["keep_weights"],
            keep_predictions=config["keep_predictions"],
            on_row=report_now_and_then(),
            should_stop=stop_question(flag),
        )
        if ended.outcome == "try again":
            # Raised for Tune to try it in a new process, which this one may have good reason to need.
            raise RuntimeError(ended.error)
        return {"outcome": ended.outcome, "error": ended.error}

    return trial
