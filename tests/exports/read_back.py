"""Reads exported files with pandas and DuckDB, as people do, and compares them with the rows of the REST API.

    read_back.py ROWS.json FILE...

ROWS.json has the `items` of /runs or /logs, all pages, in their order. What the rows of a file are, its name says.
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas as pd
from pandas._libs.parsers import STR_NA_VALUES

# Heading -> key of the API.
RUNS = {
    "Run ID": "runId",
    "Status": "status",
    "Deployment Version": "deploymentVersion",
    "Response Time": "responseTimeMicros",
    "Function": "function",
    "Executed On": "executedOn",
    "Source Type": "sourceType",
    "Source": "source",
    "Finished On": "finishedAt",
    "Reason": "reason",
    "Deployment ID": "deploymentId",
}
LOGS = {
    "Log ID": "logId",
    "Log Level": "level",
    "Log Message": "message",
    "Timestamp": "timestamp",
    "Run ID": "runId",
}
TIMES = {"Executed On", "Finished On", "Timestamp"}
NUMBERS = {"Deployment Version", "Response Time"}


class Differs(Exception):
    """A file is not what it should be."""


def micros(times):
    """Microseconds since 1970 of a column of times in UTC; none where there is no time."""
    since = (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(microseconds=1)
    return [None if pd.isna(value) else int(value) for value in since]


def expected(rows, headings, is_csv):
    """The columns that a file must have."""
    keys = LOGS if "Log ID" in headings else RUNS

    def cell(value, heading):
        if heading == "Response Time":
            return None if value is None else value / 1000
        if not is_csv or value is None or heading in NUMBERS:
            return value
        value = value.replace("\0", "\ufffd")
        if value.startswith(("=", "+", "-", "@", "\t", "\r")):
            return "'" + value
        # A CSV file says nothing of an empty text that it would not say of none.
        return value or None

    def column(heading):
        values = [row.get(keys[heading]) for row in rows]
        if heading in TIMES:
            return micros(pd.Series(pd.to_datetime(values, utc=True, format="ISO8601")))
        return [cell(value, heading) for value in values]

    return {heading: column(heading) for heading in headings}


def compare(reader, found, wanted):
    """Compares columns, cell by cell, in order."""
    if list(found) != list(wanted):
        raise Differs(f"{reader}: the headings are {list(found)}")
    for heading, cells in wanted.items():
        if len(found[heading]) != len(cells):
            raise Differs(f"{reader}: {len(found[heading])} rows instead of {len(cells)}")
        for row, (got, want) in enumerate(zip(found[heading], cells)):
            if got != want:
                raise Differs(f"{reader}: row {row}, {heading}: {got!r} instead of {want!r}")


def of_pandas(frame):
    """Columns of a frame; times must have come as times."""

    def cells(heading):
        column = frame[heading]
        if heading in TIMES and str(getattr(column.dtype, "tz", None)) != "UTC":
            raise Differs(f"pandas: {heading} has the type {column.dtype}")
        if heading in NUMBERS and not pd.api.types.is_numeric_dtype(column.dtype):
            raise Differs(f"pandas: {heading} has the type {column.dtype}")
        return micros(column) if heading in TIMES else [None if pd.isna(value) else value for value in column]

    return {heading: cells(heading) for heading in frame.columns}


def with_pandas(path, rows):
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        compare("pandas", of_pandas(frame), expected(rows, frame.columns, is_csv=False))
        return
    headings = pd.read_csv(path, nrows=0).columns
    times = [heading for heading in headings if heading in TIMES]
    wanted = expected(rows, headings, is_csv=True)
    whole = pd.read_csv(path, parse_dates=times, keep_default_na=False, na_values=[""])
    compare("pandas without words for nothing", of_pandas(whole), wanted)
    # By default it takes NA, null and the like for nothing.
    for heading, cells in wanted.items():
        wanted[heading] = [None if cell in STR_NA_VALUES else cell for cell in cells]
    compare("pandas", of_pandas(pd.read_csv(path, parse_dates=times)), wanted)


def with_duckdb(path, rows):
    file = str(path).replace("'", "''")
    table = duckdb.sql(f"SELECT * FROM '{file}'")
    types = dict(zip(table.columns, map(str, table.types)))
    for heading, kind in types.items():
        if rows and heading in TIMES and not kind.startswith("TIMESTAMP"):
            if any(row.get((LOGS | RUNS)[heading]) for row in rows):
                raise Differs(f"DuckDB: {heading} has the type {kind}")
        if path.suffix == ".parquet" and heading in TIMES and kind != "TIMESTAMP WITH TIME ZONE":
            raise Differs(f"DuckDB: {heading} has the type {kind}")
    columns = [
        f'epoch_us("{heading}")' if types[heading].startswith("TIMESTAMP") else f'"{heading}"'
        for heading in table.columns
    ]
    found = duckdb.sql(f"SELECT {', '.join(columns)} FROM '{file}'").fetchall()
    found = {heading: [row[at] for row in found] for at, heading in enumerate(table.columns)}
    compare("DuckDB", found, expected(rows, table.columns, is_csv=path.suffix != ".parquet"))


def main(rows, *files):
    rows = json.loads(Path(rows).read_text(encoding="utf-8"))
    rows = rows["items"] if isinstance(rows, dict) else rows
    failed = False
    for path in map(Path, files):
        for read in (with_pandas, with_duckdb):
            try:
                read(path, rows)
            except Exception as error:  # whatever the reader says against the file
                print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
                failed = True
    if failed:
        sys.exit(1)
    print(f"{len(files)} files of {len(rows)} rows read with pandas {pd.__version__} and DuckDB {duckdb.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
