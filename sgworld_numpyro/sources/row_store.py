"""Rows of a table, in random order, as files that are mapped: for disks that read in sequence, and not at random."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from sgworld_numpyro.sources.errors import SourceError
from sgworld_numpyro.sources.row_source import RowSource

PIECE_ROWS = 2**16  # of a table that are read at a time
PILE_BYTES = 2**26  # that are shuffled in memory


def write_row_store(path: str | PathLike, table: Any, seed: int = 0) -> dict[str, RowSource]:
    """Write a table in random order to a new directory, one ``.npy`` file a column.

    Each row goes to a pile drawn at random, and each pile is shuffled in memory: every order of the rows is equally
    likely (Rao 1961; Sandelius 1962), and no more than a pile is ever there, some 64 MiB.

    Args:
        path: of the directory, which is made.
        table: a CSV or Parquet file (``.csv``, ``.csv.gz``, ``.parquet``; the latter wants polars), or an iterable of
            pieces, dictionaries of arrays by name with rows first.
        seed: of the order.

    Returns:
        ``open_row_store(path)``.

    Raises:
        SourceError: if the table has no rows, or columns that are not numeric, or pieces that are unlike each other.
        FileExistsError: if there is something at ``path``.
    """
    directory, rng = Path(path), np.random.default_rng(seed)
    directory.mkdir(parents=True)
    piles = directory / "piles"
    piles.mkdir()
    try:
        like, count = _onto_piles(piles, _pieces(table), rng)
        if not count:
            raise SourceError(f"{table!r:.100} has no rows.")
        into = {
            name: np.lib.format.open_memmap(directory / f"{name}.npy", "w+", dtype, (count, *shape))
            for name, (shape, dtype) in like.items()
        }
        start = 0
        for pile in sorted(piles.iterdir()):
            rows = np.fromfile(pile, _record(like))
            rng.shuffle(rows)
            for name, file in into.items():
                file[start : start + len(rows)] = rows[name]
            start += len(rows)
        for file in into.values():
            file.flush()
    except BaseException:
        shutil.rmtree(directory)
        raise
    shutil.rmtree(piles)
    return open_row_store(directory)


def open_row_store(path: str | PathLike) -> dict[str, RowSource]:
    """The columns of a directory that ``write_row_store`` made, by name, to be passed to a model.

    Raises:
        SourceError: if there are none.
    """
    files = sorted(Path(path).glob("*.npy"))
    if not files:
        raise SourceError(f"{path} has no columns: want a directory that write_row_store made.")
    return {file.stem: RowSource(np.load(file, mmap_mode="r")) for file in files}


def _onto_piles(piles, pieces, rng):
    """Rows as records, appended to the files of their piles; what a row is like, and how many there are."""
    like: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    count, number = 0, 0
    for piece in pieces:
        arrays = {name: np.asarray(values) for name, values in piece.items()}
        here = {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}
        bad = [f"{name} of dtype {array.dtype}" for name, array in arrays.items() if array.dtype.kind not in "biuf"]
        if bad:
            raise SourceError(f"not numeric: {', '.join(bad)}. Leave these columns out, or encode them as numbers.")
        if like and here != like:
            raise SourceError(f"rows from number {count} on are like {here}, and those before like {like}.")
        like = here
        if len({len(array) for array in arrays.values()}) > 1:
            raise SourceError(f"columns of rows from number {count} on have unequal lengths.")
        records = np.empty(len(next(iter(arrays.values()))), _record(like))
        for name, array in arrays.items():
            records[name] = array
        # as many piles as the first piece lets expect of a large table: the law of the order does not depend on it
        number = number or max(1, min(256, 256 * records.nbytes // PILE_BYTES + 1))
        for pile, rows in enumerate(_dealt(records, number, rng)):
            with open(piles / f"{pile:03}", "ab") as file:
                rows.tofile(file)
        count += len(records)
    return like, count


def _dealt(records, number, rng):
    where = rng.integers(0, number, len(records))
    order = np.argsort(where, kind="stable")
    return np.split(records[order], np.searchsorted(where[order], np.arange(1, number)))


def _record(like):
    return np.dtype([(name, dtype, shape) for name, (shape, dtype) in like.items()])


def _pieces(table: Any) -> Iterator[Mapping[str, Any]] | Iterable[Mapping[str, Any]]:
    if not isinstance(table, str | PathLike):
        return table
    name = Path(table).name
    if name.endswith((".csv", ".csv.gz")):
        import pandas as pd  # which xarray brings

        return ({str(k): v.to_numpy() for k, v in piece.items()} for piece in pd.read_csv(table, chunksize=PIECE_ROWS))
    if name.endswith(".parquet"):
        import polars as pl  # an extra

        lazy = pl.scan_parquet(Path(table))
        rows = lazy.select(pl.len()).collect().item()
        pieces = (lazy.slice(start, PIECE_ROWS).collect() for start in range(0, rows, PIECE_ROWS))
        return ({column.name: column.to_numpy() for column in piece} for piece in pieces)
    raise SourceError(f"{name} is of no known kind: want .csv, .csv.gz or .parquet, or pieces, dictionaries of arrays.")
