"""Data that are read by row number, in blocks, and never held whole."""

from sgworld_numpyro.sources.column import Column
from sgworld_numpyro.sources.errors import SourceError
from sgworld_numpyro.sources.reading import BlockReader, read_rows
from sgworld_numpyro.sources.row_source import RowSource, columns_of, why_no_source
from sgworld_numpyro.sources.row_store import open_row_store, write_row_store

__all__ = [
    "BlockReader",
    "Column",
    "RowSource",
    "SourceError",
    "columns_of",
    "open_row_store",
    "read_rows",
    "why_no_source",
    "write_row_store",
]
