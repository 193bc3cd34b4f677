"""Reads CSV files of unknown origin: every value as text, every row with its line in the file."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.errors import InputError

_BYTE_ORDER_MARKS = {  # UTF-32 before UTF-16, whose mark is a prefix of it
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


TABLE_ENDINGS = (".csv", ".csv.gz")
_HEADER_BYTES = 2**20  # more than any header


def read_text(path: Path) -> str:
    """Read a text file, packed as `.gz` or not, in UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises InputError.
    """
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"cannot unpack {path}: {error}; fetch it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return _decode(content, path)


def _decode(content: bytes, path: Path) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"cannot read {path}: it is not UTF-8 text (byte {content[error.start]:#04x} on line {line}); save it as "
            "UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(
            f"cannot read {path}: it contains zero bytes, so it is UTF-16 without a byte order mark, or damaged; save "
            "it as UTF-8"
        )
    return text


def read_csv_table(
    path: Path, *, num_columns: int | None = None, columns: Collection[str] | None = None
) -> pd.DataFrame:
    """Read a CSV in any encoding of `read_text`, separated by commas, semicolons, tabs or vertical bars.

    The header decides the separator. Values are text and never interpreted as missing; column names are stripped; blank
    lines are skipped. The index is the line of the file on which a row begins. With `num_columns` only so many leading
    columns are read, whatever follows them; with `columns` only those are kept. Raises InputError, with the line, for
    rows with more or fewer fields than the header, and for duplicate column names and missing `columns`.
    """
    header: list[str] = []
    rows, lines, places = [], [], []
    for line, row in _iterate_rows(path, read_text(path)):
        if not header:
            header = [name.strip() for name in row[:num_columns]]
            if missing := [name for name in columns or () if name not in header]:
                raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}")
            places = [header.index(name) for name in columns or ()]
            continue
        if num_columns and len(row) >= num_columns:
            row = row[:num_columns]
        if len(row) != len(header):
            hint = "quote fields that contain a separator" if len(row) > len(header) else "fill in the missing fields"
            raise InputError(f"{path}, line {line}: {len(row)} fields where the header has {len(header)}: {hint}")
        rows.append([row[place] for place in places] if columns else row)
        lines.append(line)
    if repeated := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{path} has the column {repeated[0]} {header.count(repeated[0])} times: keep one")
    return pd.DataFrame(rows, index=lines, columns=list(columns) if columns else header, dtype=str)


def read_header(path: Path) -> list[str]:
    """Read the column names of a CSV, stripped; empty for a file that is not a table."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(_HEADER_BYTES)
        if len(content) == _HEADER_BYTES:
            content = content[: content.rfind(b"\n") + 1]
        return next(([name.strip() for name in row] for _, row in _iterate_rows(path, _decode(content, path))), [])
    except (InputError, OSError, EOFError, zlib.error):
        return []


def _iterate_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row of `text` begins, and its fields; blank lines are skipped."""
    # pandas' reader does not report the line of a row once there are blank lines or quoted line breaks.
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    separator = max(_SEPARATORS, key=lambda sign: (first.count(sign), sign == ","))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator if separator in first else ",", strict=True)
    before = 0
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield before + 1, row
            before = reader.line_num
    except csv.Error as error:
        raise InputError(
            f"cannot read {path} as a table separated by {_SEPARATORS[separator]}, line {before + 1}: {error}"
        ) from None


def require_ids(texts: pd.Series, path: Path) -> pd.Series:
    """Return a column of ids, stripped. Raises InputError, with the line, for a blank one."""
    stripped = texts.str.strip()
    if (blank := stripped == "").any():
        raise InputError(f"{path}, {name_lines(blank)}: no {texts.name}")
    return stripped


def parse_numbers(entry: pd.DataFrame, columns: Sequence[str], path: Path, *, is_blank_allowed: bool) -> pd.DataFrame:
    """Parse columns of numbers, float64, blank as NaN. Raises InputError, with the line, for another text."""
    texts = entry[list(columns)].apply(lambda column: column.str.strip())
    numbers = texts.apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = ~np.isfinite(numbers) & ~(is_blank_allowed & (texts == ""))
    for name in columns:
        if wrong[name].any():
            first = texts[name][wrong[name]].iloc[0]
            raise InputError(f"{path}, {name_lines(wrong[name])}: {name} is {first!r}; expected a number")
    return numbers


def name_lines(is_wrong: pd.Series) -> str:
    """Name the lines of wrong rows in a message; `is_wrong` has the index of a table from `read_csv_table`."""
    numbers = is_wrong.index[is_wrong]
    return f"line {numbers[0]}" + (f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else "")
