"""Parquet: the same copied rows as in CSV, read by Arrow with the types of their columns.

A driver of Arrow's own (ADBC) is about as fast, at the price of a second connection and a second way to read rows.
"""

from collections.abc import Callable
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
from django.conf import settings
from pyarrow import csv, parquet

from reports.kinds import Table, Type
from reports.models import Report

from .copying import BLOCK, Copy, quoted

# 20,000 rows: readers skip or hold a whole group at once, and so does this writer.
BLOCKS_IN_GROUP = 20_000 // BLOCK
TYPES = {
    Type.TEXT: pa.string(),
    Type.TIME: pa.timestamp("us", tz=settings.TIME_ZONE),
    Type.DATE: pa.date32(),
    Type.WHOLE: pa.int64(),
    Type.MONEY: pa.decimal128(24, 2),
    Type.CHANGE: pa.float64(),
}


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    schema = pa.schema([(column.name, TYPES[column.type]) for column in table.columns])
    rows = Copy(table, map(quoted, table.columns), progress)
    with parquet.ParquetWriter(target, schema) as writer:
        blocks = iter(rows)
        while group := b"".join(islice(blocks, BLOCKS_IN_GROUP)):
            writer.write_table(read(group, schema))
    return rows.count


def read(block: bytes, schema: pa.Schema) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(block),
        # Arrow's threads would not survive the fork of a worker's child.
        csv.ReadOptions(column_names=schema.names, use_threads=False),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(column_types=schema, strings_can_be_null=False),
    )
