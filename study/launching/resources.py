"""What one trial claims of a cluster, and how many fit. Pure arithmetic: asks no cluster."""

from __future__ import annotations

from collections.abc import Mapping


def trial_resources(
    cluster: Mapping[str, float], *, gpus_per_trial: float | None, cpus_per_trial: float | None
) -> dict[str, float]:
    """What a trial claims, as {"cpu": …, "gpu": …}: by default a GPU where there is any, and a core.

    Less than a core where the cluster has fewer of them than trials fit on its GPUs.
    """
    gpus, cpus = cluster.get("GPU", 0.0), cluster.get("CPU", 0.0)
    gpu = (1.0 if gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    if cpus_per_trial is not None:
        cpu = cpus_per_trial
    elif gpu and gpus:
        cpu = min(1.0, max(0.01, int(100 * cpus * gpu / gpus) / 100))
    else:
        cpu = 1.0
    return {"cpu": cpu, "gpu": gpu} if gpu else {"cpu": cpu}


def num_slots(cluster: Mapping[str, float], claim: Mapping[str, float]) -> int:
    """How many trials of this claim the cluster holds at once, as if it were a single machine."""
    return min(int(cluster.get(name.upper(), 0.0) / share + 1e-6) for name, share in claim.items())


def resources_text(resources: Mapping[str, float]) -> str:
    """ "2 GPU and 1 CPU"."""
    return " and ".join(f"{value:g} {name.upper()}" for name, value in resources.items())
