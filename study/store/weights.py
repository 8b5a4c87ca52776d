"""Weights that other Runs start from, each under its own digest."""

from __future__ import annotations

from collections.abc import Collection

from study.fields import digest_of
from study.store import layout
from study.store.atomic import Damaged
from study.store.layout import weights_path
from study.store.store import Store


def publish_weights(store: Store, run_id: str, payload: bytes) -> str:
    """Publish weights under their own digest, and return it (SHA-256, hex).

    Weights of a Run that was trained twice thus lie beside each other, and the rows, published
    after them, say which are its own.
    """
    digest = digest_of(payload)
    store.put(weights_path(run_id, digest), payload)
    return digest


def read_weights(store: Store, run_id: str, digest: str) -> bytes:
    """The weights with this digest. Raises FileNotFoundError, Damaged."""
    path = weights_path(run_id, digest)
    payload = store.get(path)
    found = digest_of(payload)
    if found != digest:
        raise Damaged(path, f"digest {found[:12]} of {len(payload)} bytes")
    return payload


def check_weights_at(store: Store, path: str) -> None:
    """Raises Damaged unless the weights at this path have the digest of their name."""
    payload = store.get(path)
    short = path.rpartition("-")[2].removesuffix(".safetensors")
    found = digest_of(payload)
    if not found.startswith(short):
        raise Damaged(path, f"digest {found[:12]} of {len(payload)} bytes")


def empty_weights(store: Store, among: Collection[str]) -> list[Damaged]:
    """Weights of these Runs that hold nothing, as a disk that lost power leaves them: one listing."""
    found = []
    for entry in store.listed(layout.WEIGHTS):
        match = layout.WEIGHTS_NAME.fullmatch(entry.base_name)
        if match and match[1] in among and not entry.size:
            found.append(Damaged(f"{layout.WEIGHTS}/{entry.base_name}", "empty"))
    return found


def ids_with_weights(store: Store) -> frozenset[str]:
    """Ids of all Runs with weights that are not empty: one listing."""
    names = (entry.base_name for entry in store.listed(layout.WEIGHTS) if entry.size)
    matches = (layout.WEIGHTS_NAME.fullmatch(name) for name in names)
    return frozenset(match[1] for match in matches if match)
