"""Where leases lie, `lease/<number>.json`, in a directory or on a bucket: what can be done to one.

Owns the single steps, each of which happens at once or not at all; in which order, and what follows from
them, is `lease`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from study.store import Store, atomic, layout
from study.store.layout import LEASE, LEASE_NAME, lease_path

RELEASED: Final = b"{}\n"
_LOST: Final = b"the disk has lost it"  # what no owner wrote: whether it lives is told by its beats


class Place(Protocol):
    """The leases of one store. `read`, `beat` raise FileNotFoundError; all of them, OSError.

    `is_exact`: of several that create one number, one succeeds, and nothing is put over it.
    `pause_seconds`: between two looks at a lease that is watched.
    """

    @property
    def is_exact(self) -> bool: ...

    @property
    def pause_seconds(self) -> float: ...

    def stamps(self) -> Mapping[int, Hashable]:
        """Every number that there is, and a value that another beat changes."""
        ...

    def age(self, number: int) -> float:
        """Seconds since its last beat, by the store's own clock; negative where that is in the future."""
        ...

    def read(self, number: int) -> bytes:
        """What it holds."""
        ...

    def create(self, number: int, content: bytes) -> bool:
        """Whether it was not there, and now is."""
        ...

    def beat(self, number: int, content: bytes) -> None:
        """Marks it with the present time."""
        ...

    def release(self, number: int) -> None:
        """From now on it says that it was released."""
        ...

    def remove(self, number: int) -> None:
        """Removes it, if it is there."""
        ...

    def pause(self, seconds: float) -> None:
        """Waits."""
        ...


def place_of(store: Store) -> Place:
    """The leases of this store; the folder of a directory is made."""
    folder = store.local_path(LEASE)
    if folder is None:
        return Bucket(store, is_exact=store.conditions_unheeded() is None)
    atomic.make_folder(folder)
    return Directory(store, folder)


@dataclass(frozen=True)
class Directory:
    """Files, whose beats are their times of change."""

    store: Store
    folder: Path
    is_exact: bool = True
    pause_seconds: float = 0.5

    def stamps(self) -> Mapping[int, Hashable]:
        found: dict[int, Hashable] = {}
        for path in self.folder.iterdir():
            match = LEASE_NAME.fullmatch(path.name)
            if match:
                try:
                    found[int(match[1])] = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue  # removed as outdated since it was listed
        return found

    def age(self, number: int) -> float:
        probe = atomic.temporary_beside(self._path(number))
        probe.touch()
        try:
            return probe.stat().st_mtime - self._path(number).stat().st_mtime
        finally:
            probe.unlink()

    def read(self, number: int) -> bytes:
        try:
            return self._path(number).read_bytes()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return _LOST

    def create(self, number: int, content: bytes) -> bool:
        return self.store.create(lease_path(number), content)

    def beat(self, number: int, content: bytes) -> None:
        os.utime(self._path(number))

    def release(self, number: int) -> None:
        path = self._path(number)
        # In place: on a full disk there is room for it.
        with path.open("r+b") as stream:
            stream.write(RELEASED.rjust(path.stat().st_size))

    def remove(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _path(self, number: int) -> Path:
        return self.folder / Path(lease_path(number)).name


@dataclass(frozen=True)
class Bucket:
    """Objects, whose beats put them anew: where conditions are heeded, only over what they hold."""

    store: Store
    is_exact: bool
    pause_seconds: float = 2.0

    def stamps(self) -> Mapping[int, Hashable]:
        found: dict[int, Hashable] = {}
        for entry in self.store.listed(LEASE):
            match = LEASE_NAME.fullmatch(entry.base_name)
            if match:
                found[int(match[1])] = entry.mtime
        return found

    def age(self, number: int) -> float:
        # The clock of the bucket is the time of what is put just now.
        probe = f"{layout.LEASE}/now-{os.getpid()}"
        self.store.put(probe, b"")
        try:
            times = {entry.base_name: entry.mtime for entry in self.store.listed(LEASE)}
        finally:
            self.store.remove(probe)
        there = times.get(Path(lease_path(number)).name)
        if there is None:
            raise FileNotFoundError(lease_path(number))
        seconds: float = (times[Path(probe).name] - there).total_seconds()
        return seconds

    def read(self, number: int) -> bytes:
        return self.store.get(lease_path(number))

    def create(self, number: int, content: bytes) -> bool:
        return self.store.create(lease_path(number), content)

    def beat(self, number: int, content: bytes) -> None:
        self._put(number, content, content)

    def release(self, number: int) -> None:
        there = self.read(number)
        # As long as before: a reader that asked for its size before this gets as many bytes of pyarrow's
        # client, whatever they are.
        self._put(number, there, RELEASED.rjust(len(there)))

    def remove(self, number: int) -> None:
        self.store.remove(lease_path(number))

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _put(self, number: int, expected: bytes, content: bytes) -> None:
        path = lease_path(number)
        if not self.is_exact:
            self.store.put(path, content)
        elif not self.store.swap(path, expected, content):
            raise FileNotFoundError(path)  # it is another's
