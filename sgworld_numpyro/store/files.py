"""Files that are there whole or not at all, and whose damage is noticed.

Each is written aside, forced to the disk, read back and then renamed. A file is never changed once it has its name.
"""

import fcntl
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

ASIDE = ".partial"
LOCK = "lock"


class DamagedRunError(ValueError):
    """The files of a run are not as they were written, or not of a run."""


class Entry(NamedTuple):
    """A file as it was written: its name, size in bytes, and SHA-256."""

    name: str
    size: int
    sha256: str


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Entry:
    """Write an npz file, uncompressed.

    Raises:
        OSError: if it cannot be written; then nothing is left of it.
    """

    def fill(file):
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def check(written):
        with zipfile.ZipFile(written) as archive:
            return archive.testzip() is None

    return _write(path, fill, check)


def write_json(path: Path, content: Mapping[str, Any]) -> Entry:
    """Write JSON with a checksum of its own.

    Raises:
        OSError: as ``write_arrays``.
    """
    body = json.dumps(content)
    text = f'{{"sha256": "{hashlib.sha256(body.encode()).hexdigest()}",\n"content": {body}}}\n'.encode()
    return _write(path, lambda file: file.write(text), lambda written: written.read_bytes() == text)


def read_json(path: Path) -> dict[str, Any]:
    """What ``write_json`` wrote.

    Raises:
        DamagedRunError: if that is not what is there.
    """
    try:
        found = json.loads(path.read_bytes())
        content, expected = found["content"], found["sha256"]
    except FileNotFoundError:
        raise DamagedRunError(f"{path} is missing.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRunError(f"{path} is damaged, or no file of a run: {error!r:.80}.") from error
    if hashlib.sha256(json.dumps(content).encode()).hexdigest() != expected:
        raise DamagedRunError(f"{path} is damaged: it is not what was written.")
    return content


def read_arrays(path: Path, names: Iterator[str] | list[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an npz file by name, all or some.

    Raises:
        DamagedRunError: if one cannot be read, or is not what was written.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in (archive.files if names is None else names)}
    except FileNotFoundError:
        raise DamagedRunError(f"{path} is missing.") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedRunError(f"{path} is damaged: {error}.") from error


def check_entry(directory: Path, entry: Entry) -> None:
    """Raise ``DamagedRunError`` if a file is not as it was written."""
    path = directory / entry.name
    try:
        size = path.stat().st_size
        if size != entry.size:
            raise DamagedRunError(f"{path} is damaged: it has {size} bytes and was written with {entry.size}.")
        if _sha256(path) != entry.sha256:
            raise DamagedRunError(f"{path} is damaged: its checksum is not that of what was written.")
    except FileNotFoundError:
        raise DamagedRunError(f"{path} is missing.") from None


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else writes to a directory meanwhile; the lock goes with the process, however that ends.

    Raises:
        OSError: if it cannot be written to.
        RuntimeError: if another process does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / LOCK, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"{directory} is being written to by another process: wait for it, or give another path."
            ) from None
        yield


def _write(path: Path, fill: Callable[[BinaryIO], Any], check: Callable[[Path], bool]) -> Entry:
    aside = path.with_name(path.name + ASIDE)
    try:
        with open(aside, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if not check(aside):
            raise OSError(f"{aside} does not read back as it was written")
        entry = Entry(path.name, aside.stat().st_size, _sha256(aside))
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)  # the name too must reach the disk
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return entry


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
