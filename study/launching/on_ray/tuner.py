"""Run a study with one Ray Tuner, one trial per Run.

Tune's state is temporary: only the store decides which Runs are finished."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray import tune

from study.launching.display import Screen
from study.launching.on_ray.cluster import NewNodes, connected, refuse_other_nodes
from study.launching.on_ray.loggers import loggers
from study.launching.on_ray.nodes import (
    ACCELERATOR_LABEL,
    Nodes,
    no_gpu_claimed,
    no_room,
    nodes_with,
    num_slots,
    resources_text,
    sum_of,
    trial_resources,
)
from study.launching.on_ray.searcher import LeaveTuneLoop, RunSearcher, Watch, WorkersMayStart
from study.launching.on_ray.trial import trainable
from study.launching.options import LOCAL, LaunchOptions
from study.launching.progress import Progress
from study.launching.queue import MAX_TRIES, RunQueue
from study.launching.temporary_files import TUNE_PREFIX, temporary_folder
from study.messages import UserError
from study.signals import StopFlag, stop_on_signals
from study.store import Store

_TUNE: Final = {
    # Tune's loggers write a file per trial, and halve the number of reports that Tune can process.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # This project handles signals; Tune's own handler would end the trials immediately.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Errors are in the store; printing them here would flood the screen.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table even if verbose is 0
    # Snapshots are never restored.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the searcher limits the number of trials
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


WAITS: Final = (
    "`study run` waits until an autoscaler brings a node; without an autoscaler, end it by Ctrl-C"
)


def launch(
    queue: RunQueue,
    store: Store,
    options: LaunchOptions,
    *,
    progress: Progress,
    screen: Screen,
    keep: Collection[str],
    keep_predictions: Collection[str],
    must_stop: Callable[[], bool],
) -> Mapping[str, str]:
    """Train every Run of the queue on a cluster, until a stop is requested.

    Args:
        keep: ids of Runs whose weights are kept.
        keep_predictions: ids of Runs whose predictions are kept.
        must_stop: called in every step of Tune's loop; True requests a stop, as signals do. Trials then
            have `options.grace_seconds` to write a checkpoint.

    Returns:
        The errors of failed Runs, by id, that the store could not record.

    Raises:
        UserError: there is no cluster, a node's package versions differ from this machine's, or this
            machine cannot hold a trial.
        RayNotStarted: Ray did not start on this machine.
    """
    assert options.address is not None
    for name, value in _TUNE.items():
        os.environ.setdefault(name, value)
    with (
        connected(options.address),
        temporary_folder(TUNE_PREFIX) as scratch,
    ):
        root, nodes = store.local_path(""), ray.nodes()
        refuse_other_nodes(root)
        claim = _claim_with_room(options, screen)
        flag = _flag()
        with stop_on_signals(options.resume_hint) as request:
            callbacks = loggers(options.logs, options.log_folder, screen.remark)
            watch = Watch(
                progress,
                screen,
                store,
                request,
                must_stop,
                flag,
                options.grace_seconds,
                Nodes(ray.get_runtime_context().get_node_id(), nodes),
                NewNodes(root, nodes),
                # At the end of its loop, Tune saves every trial again; nothing ever reads these files.
                leave_when=lambda: queue.is_over,
            )
            screen.follow(progress.look)
            searcher = RunSearcher(
                queue,
                store,
                watch,
                keep,
                keep_predictions,
                claim,
                options.max_concurrent,
                accelerator=options.accelerator,
                may_grow=options.address != LOCAL,
            )
            tuner = tune.Tuner(
                tune.with_resources(
                    trainable(store, options, claim, flag), _bundles(claim, options.accelerator)
                ),
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
                    callbacks=[watch, *callbacks],
                    failure_config=tune.FailureConfig(max_failures=MAX_TRIES - 1),
                ),
            )
            with suppress(LeaveTuneLoop):
                tuner.fit()
            for each in callbacks:  # Tune does not close them if its loop was left
                each.close()
            screen.end()
    if queue.is_over:
        searcher.outcomes.note_start_failed()
    return searcher.outcomes.unnoted


def look_at_cluster(options: LaunchOptions) -> str:
    """Describe the cluster at `options.address`: "3 nodes with 24 CPU and 2 GPU: 2 Runs at a time".

    Starts no Run. Raises UserError as `launch` does.
    """
    assert options.address is not None
    with connected(options.address):
        refuse_other_nodes(root=None)
        nodes = ray.nodes()
        claim = _claim(nodes, options)
        if why := no_room(nodes, claim, options.accelerator):
            if options.address == LOCAL:
                raise UserError(why)
            return f"0 Runs at a time now: {why}; {WAITS}"
        fitting = nodes_with(nodes, options.accelerator)
        slots = sum(num_slots(node["Resources"], claim) for node in fitting)
        has = {name: sum_of(fitting).get(name.upper(), 0.0) for name in ("cpu", "gpu")}
        which = "" if options.accelerator is None else f" of {options.accelerator}"
        text = (
            f"{len(fitting)} node{'s' if len(fitting) > 1 else ''}{which} with {resources_text(has)}: "
            f"{slots} Runs at a time, of {resources_text(claim)} each"
        )
        remark = _no_gpu_claimed(nodes, claim, options)
        return f"{text}; {remark}" if remark else text


def _claim(nodes: Sequence[Mapping[str, Any]], options: LaunchOptions) -> dict[str, float]:
    fitting, gpus = nodes_with(nodes, options.accelerator), options.gpus_per_trial
    if gpus is None and options.accelerator is not None and not fitting:
        gpus = 1.0  # no node has the accelerator yet
    return trial_resources(fitting, gpus_per_trial=gpus, cpus_per_trial=options.cpus_per_trial)


def _no_gpu_claimed(
    nodes: Sequence[Mapping[str, Any]], claim: Mapping[str, float], options: LaunchOptions
) -> str:
    if options.address == LOCAL:  # no node joins
        return ""
    return no_gpu_claimed(nodes, claim, options.gpus_per_trial)


def _claim_with_room(options: LaunchOptions, screen: Screen) -> dict[str, float]:
    nodes = ray.nodes()
    claim = _claim(nodes, options)
    if why := no_room(nodes, claim, options.accelerator):
        if options.address == LOCAL:
            raise UserError(why)
        screen.remark(f"{why}; {WAITS}")  # Ray would wait without a message
    elif remark := _no_gpu_claimed(nodes, claim, options):
        screen.remark(remark)
    return claim


def _bundles(claim: Mapping[str, float], accelerator: str | None) -> Any:
    bundle = {name.upper(): share for name, share in claim.items()}
    if accelerator is None:
        return tune.PlacementGroupFactory([bundle])
    return tune.PlacementGroupFactory(
        [bundle], bundle_label_selector=[{ACCELERATOR_LABEL: accelerator}]
    )


def _flag() -> Any:
    # On this node, so that trials notice its loss: their calls of the actor then fail.
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(StopFlag)
    return actor.remote()
