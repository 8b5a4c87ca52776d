"""A Run in a Ray worker, called as Tune calls it: in a new thread for each trial."""

from __future__ import annotations

import threading
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

    threads: list[int] = []
    limited: list[float] = []
    ended = [Attempt("finished"), Attempt("try again", "made up"), Attempt("diverged")]

    def attempt(runs: list[Run], *_: Any, **__: Any) -> dict[str, Attempt]:
        threads.append(threading.get_ident())
        return {run.id: ended[len(threads) - 1] for run in runs}

    reports = SimpleNamespace(row=None, end=lambda each: {"outcome": each[RUN.id].outcome})
    monkeypatch.setattr(trial, "attempt", attempt)
    monkeypatch.setattr(trial, "Reports", lambda **_: reports)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limited.append)
    train = trial.trainable(empty, LaunchOptions(), claim, flag=None)
    config = {"runs": [to_json(RUN)], "keep_weights": [], "keep_predictions": []}
    told: list[Any] = []

    def as_tune() -> None:
        try:
            told.append(train(config)["outcome"])
        except RuntimeError as error:
            told.append(str(error))

    for _ in ended:
        thread = threading.Thread(target=as_tune)
        thread.start()
        thread.join()
    assert told == ["finished", "made up", "diverged"]
    assert len(set(threads)) == 1 and threading.get_ident() not in threads
    assert limited == fractions
