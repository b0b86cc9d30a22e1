"""Blobs: bytes on disk under their own SHA-256, there whole or not at all; and the spool where uploads grow.

Only what any object store has: put under a key, read, delete, list.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from detmetrics_server.errors import CorruptError, of_os_error

PIECE = 1 << 20


class Spooled:
    """An upload that grows on disk; nothing of it stays unless :meth:`Blobs.keep` takes it.

    A write that nobody waits for any more may still be on its way to a thread when the upload is closed: it finds it
    closed, and writes nothing.
    """

    def __init__(self, path: Path, count: Callable[[int], None]) -> None:
        self.path = path
        self.size = self.claimed = 0
        self._count = count
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def claim(self, size: int) -> None:
        """Count bytes that are to be written, until it is closed."""
        self.claimed += size
        self._count(size)

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes.

        Raises
        ------
        FullError
            Where the disk is full.
        """

        def add(file: BinaryIO) -> None:
            file.write(data)
            self._hash.update(data)
            self.size += len(data)

        self._unless_closed(add)

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes so far, hex."""
        return self._hash.hexdigest()

    def flush(self, *, durable: bool) -> None:
        """Hand everything to the system, with ``durable`` also to the disk.

        Raises
        ------
        FullError
            Where the disk is full.
        """

        def hand_over(file: BinaryIO) -> None:
            file.flush()
            if durable:
                os.fsync(file.fileno())

        self._unless_closed(hand_over)

    def _unless_closed(self, work: Callable[[BinaryIO], None]) -> None:
        with self._lock:
            if self._is_closed:
                return
            try:
                if self._file is None:
                    self._file = open_new(self.path)
                work(self._file)
            except OSError as error:
                raise of_os_error(error) from error

    def close(self) -> None:
        """Forget it."""
        with self._lock:
            self._is_closed = True
            if self._file is not None:
                try:
                    self._file.close()
                except OSError:  # the disk is full, and the rest of it is not wanted
                    pass
                finally:
                    self._file = None
            self._count(-self.claimed)
            self.claimed = 0
            self.path.unlink(missing_ok=True)


def open_new(path: Path) -> BinaryIO:
    """Open a file that must not exist; tests put faults in here."""
    return open(path, "xb")


class Blobs:
    """Blobs in a folder.

    Parameters
    ----------
    folder : path
        Made where missing.
    durable : bool
        Whether each blob is on the disk, not only with the system, before it counts as kept.

    Attributes
    ----------
    spool_bytes : int
        Of all uploads that are not closed, as far as claimed.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder, self.spool, self.durable = folder / "blobs", folder / "spool", durable
        for path in (self.folder, self.spool):
            path.mkdir(parents=True, exist_ok=True)
        self.spool_bytes = 0
        self._counting = threading.Lock()

    def _count(self, size: int) -> None:
        with self._counting:  # uploads are closed in threads
            self.spool_bytes += size

    def new(self) -> Spooled:
        """Start an upload."""
        return Spooled(self.spool / secrets.token_hex(8), self._count)

    def path(self, sha256: str) -> Path:
        """Where a blob lies or would lie."""
        return self.folder / sha256[:2] / sha256

    def keep(self, upload: Spooled) -> str:
        """Make an upload a blob and give its SHA-256; the same bytes twice are one blob.

        Raises
        ------
        FullError
            Where the disk is full.
        """
        upload.flush(durable=self.durable)
        path = self.path(upload.sha256)
        try:
            is_new = not path.parent.exists()
            path.parent.mkdir(exist_ok=True)
            os.replace(upload.path, path)
            if self.durable:
                _sync_folder(path.parent)
                if is_new:
                    _sync_folder(self.folder)
        except OSError as error:
            raise of_os_error(error) from error
        return upload.sha256

    def put(self, data: bytes) -> str:
        """Keep bytes and give their SHA-256."""
        upload = self.new()
        try:
            upload.write(data)
            return self.keep(upload)
        finally:
            upload.close()

    def read(self, sha256: str) -> bytes:
        """Give a blob.

        Raises
        ------
        CorruptError
            Where it is missing or its bytes are not those that were kept.
        """
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise CorruptError("what was stored is missing") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CorruptError("what was stored is damaged")
        return data

    def delete(self, sha256: str) -> None:
        """Delete a blob; one that is not there is no error."""
        self.path(sha256).unlink(missing_ok=True)

    def listed(self) -> Iterator[str]:
        """Every blob there is."""
        for path in self.folder.glob("??/*"):
            yield path.name

    def clear_spool(self) -> int:
        """Delete uploads that a killed server left; give their number."""
        left = list(self.spool.iterdir())
        for path in left:
            path.unlink()
        return len(left)


def check(path: Path, sha256: str) -> None:
    """Read a file once and refuse one that is missing or not what its name says.

    Raises
    ------
    CorruptError
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise CorruptError("what was stored is missing") from None
    if found != sha256:
        raise CorruptError("what was stored is damaged")


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
