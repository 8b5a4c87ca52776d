"""A Run in a Ray worker, called as Tune calls it: in a new thread for each trial."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from study.launching.options import LaunchOptions
from study.launching.queue import Attempt
from study.run import Recipe, Run, to_json
from study.store import Store

RUN = Run(task="t", size=4, model="resnet18", width=1, seed=0, recipe=Recipe(num_epochs=1))


@pytest.mark.parametrize(
    ("claim", "fractions"),
    [({"cpu": 1.0}, []), ({"cpu": 1.0, "gpu": 1.0}, []), ({"cpu": 0.5, "gpu": 0.25}, [0.25] * 3)],
)
def test_trials_of_a_worker_train_in_one_thread_with_their_share_of_the_gpu(
    empty: Store,
    monkeypatch: pytest.MonkeyPatch,
    claim: dict[str, float],
    fractions: list[float],
) -> None:
    from study.launching.on_ray import trial

    attempts = iter([Attempt("finished"), Attempt("try again", "made up"), Attempt("diverged")])
    threads: list[int] = []
    fractions_set: list[float] = []

    def attempt(*_: Any, **__: Any) -> dict[str, Attempt]:
        threads.append(threading.get_ident())
        return {RUN.id: next(attempts)}

    reports = SimpleNamespace(row=None, end=lambda ended: {"outcome": ended[RUN.id].outcome})
    monkeypatch.setattr(trial, "attempt", attempt)
    monkeypatch.setattr(trial, "Reports", lambda **_: reports)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions_set.append)
    train = trial.trainable(empty, LaunchOptions(), claim, flag=None)
    config = {"runs": [to_json(RUN)], "keep_weights": [], "keep_predictions": []}

    def outcome() -> str:
        try:
            return train(config)["outcome"]
        except RuntimeError as error:
            return str(error)

    outcomes = []
    for _ in range(3):
        with ThreadPoolExecutor(1) as new_thread:
            outcomes.append(new_thread.submit(outcome).result())
    assert outcomes == ["finished", "made up", "diverged"]
    assert len(set(threads)) == 1 and threading.get_ident() not in threads
    assert fractions_set == fractions
