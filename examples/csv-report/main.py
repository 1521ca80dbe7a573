"""Reports on rows of CSV: one row a group, with number, sum, mean, least and greatest of a column."""

import csv
import io
from decimal import Decimal, InvalidOperation

import korelogger

MOST_PROBLEMS = 20


def report(text, group_by, value):
    """A table of the values in a column, by the groups in another one.

    text: CSV with a heading. group_by, value: names of its columns. Rows whose value is no number are left out and told of.
    """
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")), skipinitialspace=True)
    columns = reader.fieldnames or []
    for name in (group_by, value):
        if name not in columns:
            raise ValueError(f"there is no column {name!r}; there are: {', '.join(columns) or 'none'}")
    groups, problems, rows = {}, [], 0
    for row in reader:
        rows += 1
        try:
            number = Decimal((row[value] or "").strip())
            if not number.is_finite():
                raise InvalidOperation
        except InvalidOperation:
            problems.append({"line": reader.line_num, "value": row[value]})
            continue
        groups.setdefault((row[group_by] or "").strip(), []).append(number)
    for problem in problems[:MOST_PROBLEMS]:
        korelogger.warning("row left out: its value is no number", **problem)
    korelogger.info("report made", rows=rows, left_out=len(problems), groups=len(groups))
    table = [_line(name, numbers) for name, numbers in sorted(groups.items())]
    everything = [number for numbers in groups.values() for number in numbers]
    print(f"{rows} rows, {len(groups)} groups")
    return {
        "columns": [group_by, "rows", "sum", "mean", "least", "greatest"],
        "rows": table,
        "total": _line("", everything)[1:],
        "leftOut": problems[:MOST_PROBLEMS],
    }


def _line(name, numbers):
    if not numbers:
        return [name, 0, 0, None, None, None]
    # Decimals add up exactly; JSON's numbers come last.
    total = sum(numbers)
    mean = (total / len(numbers)).quantize(Decimal("0.01"))
    return [name, len(numbers), *(float(number) for number in (total, mean, min(numbers), max(numbers)))]
