"""Store the weights that other Runs start from, each under its own digest."""

from __future__ import annotations

from collections.abc import Collection

from study.fields import digest_of
from study.store import layout
from study.store.atomic import Damaged
from study.store.layout import weights_path
from study.store.store import Store


def publish_weights(store: Store, run_id: str, payload: bytes) -> str:
    """Publish weights under their own digest, and return it (SHA-256, hex).

    If a Run was trained twice, both weights exist, and the rows, published later, name theirs.
    """
    digest = digest_of(payload)
    store.put(weights_path(run_id, digest), payload)
    return digest


def read_weights(store: Store, run_id: str, digest: str) -> bytes:
    """Return the weights with this digest. Raises FileNotFoundError, Damaged."""
    return _checked(store, weights_path(run_id, digest), digest)


def read_at(store: Store, path: str) -> bytes:
    """Return the weights at this path, checked against the digest in their name. Raises Damaged."""
    return _checked(store, path, path.rpartition("-")[2].removesuffix(".safetensors"))


def _checked(store: Store, path: str, digest: str) -> bytes:
    """Return the weights at this path; their digest must begin with `digest`."""
    payload = store.get(path)
    found = digest_of(payload)
    if not found.startswith(digest):
        raise Damaged(path, f"digest {found[:12]} of {len(payload)} bytes")
    return payload


def empty_weights(store: Store, among: Collection[str]) -> list[Damaged]:
    """Return empty weights of these Runs (left by a disk that lost power), in one listing."""
    found = []
    for entry in store.listed(layout.WEIGHTS):
        match = layout.WEIGHTS_NAME.fullmatch(entry.base_name)
        if match and match[1] in among and not entry.size:
            found.append(Damaged(f"{layout.WEIGHTS}/{entry.base_name}", "empty"))
    return found


def ids_with_weights(store: Store) -> frozenset[str]:
    """Return the ids of all Runs with weights that are not empty, in one listing."""
    names = (entry.base_name for entry in store.listed(layout.WEIGHTS) if entry.size)
    matches = (layout.WEIGHTS_NAME.fullmatch(name) for name in names)
    return frozenset(match[1] for match in matches if match)
