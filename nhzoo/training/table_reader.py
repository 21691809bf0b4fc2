"""Reading tables of runs from text, CSV, JSON and JSON Lines, as rows of cells.

A file is told by what it holds, not by its name. What has one meaning is read: a byte order mark,
UTF-16, any line ends, gzip, comma, semicolon, tab or | between columns, headers in capitals or with
their unit, comments above the header, an index column, thousands separators, decimal commas. What
could mean two things ("1,234") is refused with the remedy.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.runtime import files

MOST_ROWS = 100_000
_LIMIT = 256 * files.MEGABYTE
_MOST_COLUMNS = 1_000

_ARCHIVES = {b"PK\x03\x04": "a zip or a spreadsheet", b"PAR1": "Parquet", b"\xfd7zXZ": "xz"}
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_MISSING = frozenset(
    ("", "-", "nan", "na", "n/a", "<na>", "#n/a", "#na", "null", "none", "nat", "nil", "missing")
)
_UNITS = {
    "params": {"parameters", "params", "count"},
    "samples": {"samples", "frames", "tokens", "steps", "keys"},
    "unique_samples": {"samples", "frames", "tokens", "steps", "keys"},
    "flops": {"flop", "flops"},
    "flops_budget": {"flop", "flops"},
    "loss": {"nat", "nats", "nats/key", "nats/token", "nats per key"},
    "loss_se": {"nat", "nats", "nats/key", "nats/token", "nats per key"},
}
"""Units that a header may name without changing what its numbers mean."""

_SPACE = "[ \u00a0\u2007\u2009\u202f]"
_GROUPED = re.compile(rf"([+-]?\d{{1,3}}(?:{_SPACE}\d{{3}})+)([.,]\d+)?")
_COMMAS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_DOTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?")
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")  # thousands or a fraction
_COMMA_FRACTION = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_PLAIN = re.compile(r"[+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class TableRow:
    """A row: where it is ("runs.csv, line 3"), and its cells by the names of the columns."""

    where: str
    cells: dict[str, Any]


def is_missing(value: object) -> bool:
    """Whether a cell says that there is no value: null, empty, NaN, NA, None, #N/A."""
    if value is None or value != value:
        return True
    return isinstance(value, str) and value.strip().casefold() in _MISSING


def read_table(
    path: Path, known: Collection[str], text: Collection[str], notes: list[str] | None = None
) -> list[TableRow]:
    """The rows of the table at `path`, at most 100,000 of them, from a file of at most 256 MiB.

    `known` are the names of columns that headers are matched with (others keep the name they have),
    `text` those of them that are no numbers. Numbers of CSV come as text that `float` reads. What
    was read other than as UTF-8 is said in `notes`. InputError names file, line and column, and
    the remedy.
    """
    content = _text(_unpacked(files.read_bounded(path, _LIMIT), path), path, notes)
    start = content.lstrip()[:1]
    if start and start in "[{":
        rows = _json(content, str(path), known)
    else:
        rows = _numbers(list(_csv(content, str(path), known)), [n for n in known if n not in text])
    if not rows:
        raise InputError(f"{path}: holds no row; a table of runs has one row a run")
    return rows


def _unpacked(data: bytes, path: Path) -> bytes:
    """The bytes themselves, or what they unpack to where they are gzip: bounded."""
    for magic, name in _ARCHIVES.items():
        if data.startswith(magic):
            raise InputError(f"{path}: is {name}; export it as CSV or JSON Lines")
    if not data.startswith(b"\x1f\x8b"):
        return data
    found = bytearray()
    while data.startswith(b"\x1f\x8b"):  # gzip files may be joined
        decompressor = zlib.decompressobj(wbits=31)
        try:
            found += decompressor.decompress(data, _LIMIT + 1 - len(found))
        except zlib.error as error:
            raise InputError(f"{path}: is damaged gzip ({error}); pack it again") from None
        if len(found) > _LIMIT:
            raise InputError(f"{path}: unpacks to more than the {_LIMIT:,} bytes allowed here")
        if not decompressor.eof:
            raise InputError(f"{path}: its gzip data is cut off; pack it again")
        data = decompressor.unused_data
    return bytes(found)


def _text(data: bytes, path: Path, notes: list[str] | None) -> str:
    coding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        found = data.decode(coding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        if coding != "utf-8":
            raise InputError(f"{path}: is damaged {coding} text; save it as UTF-8") from None
        try:
            found = data.decode("cp1252")
        except UnicodeDecodeError:
            raise InputError(
                f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8; save the table "
                "as UTF-8"
            ) from None
        if notes is not None:
            notes.append(f"{path}, line {line}: is not UTF-8, and was read as Windows-1252")
    if "\0" in found:
        line = found[: found.index("\0")].count("\n") + 1
        raise InputError(
            f"{path}, line {line}: holds a NUL character; save the table as UTF-8 text"
        )
    return found


def _too_many(where: str) -> InputError:
    return InputError(f"{where}: more than {MOST_ROWS:,} rows; keep one row a run")


# --- CSV


def _csv(content: str, where: str, known: Collection[str]) -> Iterator[TableRow]:
    """The rows under the header, with the text of their cells."""
    lines = io.StringIO(content, newline=None)  # \r\n and \r alone end lines, too
    number, head, delimiter = 0, "", None
    for line in lines:
        number += 1
        if found := re.fullmatch(r"sep=(.)", line.strip()):  # Excel's
            delimiter = found[1]
        elif line.strip() and not line.lstrip().startswith("#"):
            head = line
            break
    if not head:
        raise InputError(f"{where}: is empty; a table of runs has a header and one row a run")
    names = _header(head, f"{where}, line {number}", known, delimiter)
    delimiter = names.delimiter
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    first, count = number, 0
    while True:
        place = f"{where}, line {first + reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            hint = "a quotation mark is opened there and not closed"
            reason = hint if "unexpected end" in str(error) or "limit" in str(error) else str(error)
            raise InputError(f"{place}: {reason}; correct the line") from None
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if cells[0].lstrip().startswith("#"):
            raise InputError(
                f"{place}: begins with #; comments stand above the header, so remove the line"
            )
        extra = cells[len(names.columns) :]
        if len(cells) < len(names.columns) or any(cell.strip() for cell in extra):
            raise InputError(
                f"{place}: has {len(cells)} cells and the header {len(names.columns)}; quote text "
                f"and numbers that hold {delimiter!r}, and name every column"
            )
        count += 1
        if count > MOST_ROWS:
            raise _too_many(where)
        pairs = zip(names.columns, cells, strict=False)
        yield TableRow(place, {name: cell.strip() for name, cell in pairs if name})


@dataclass(frozen=True)
class _Header:
    columns: list[str]
    delimiter: str


def _header(line: str, where: str, known: Collection[str], delimiter: str | None) -> _Header:
    """The columns' names, split by what gives the most known ones."""
    best = _Header([], ",")
    most = -1
    for one in [delimiter] if delimiter else [",", ";", "\t", "|"]:
        try:
            cells = next(csv.reader([line], delimiter=one, strict=True, skipinitialspace=True))
        except csv.Error:
            continue
        columns = [_column(cell, known) for cell in cells[: _MOST_COLUMNS + 1]]
        score = sum(name in known for name in columns)
        if score > most or (score == most and len(columns) > len(best.columns)):
            best, most = _Header(columns, one), score
    if len(best.columns) > _MOST_COLUMNS:
        raise InputError(f"{where}: has more than {_MOST_COLUMNS:,} columns; keep those of runs")
    if not best.columns:
        raise InputError(f"{where}: is not a header of columns; correct its quotation marks")
    _once(best.columns, where, known)
    return best


def _once(columns: Collection[str], where: str, known: Collection[str]) -> None:
    for name, count in Counter(columns).items():
        if count > 1 and name in known:
            raise InputError(f"{where}, column {name}: {count} columns have that name; remove one")


def _column(name: str, known: Collection[str]) -> str:
    """What a header means: the known name that it is but for capitals, spaces and its unit.

    With a unit that would scale its numbers it is another column ("params (M)").
    """
    plain = name.strip().strip("\ufeff")
    found = re.fullmatch(r"(.*?)\s*[(\[](.*)[)\]]", plain)
    base, unit = (found[1], found[2].strip().casefold()) if found else (plain, "")
    folded = re.sub(r"[\s-]+", "_", base.strip().casefold())
    meant = folded in known and (not unit or unit in _UNITS.get(folded, ()))
    return folded if meant else plain


def _numbers(rows: list[TableRow], columns: list[str]) -> list[TableRow]:
    """The rows with numbers written as `float` reads them.

    A file is written in one convention. Which one is told by the numbers that can mean one thing
    only; those that could be thousands or a fraction follow them, or are refused.
    """
    proof: dict[str, tuple[TableRow, str]] = {}
    for row in rows:
        for name in columns:
            for sign in _signs(row.cells.get(name, "")):
                proof.setdefault(sign, (row, name))
    if "comma" in proof and ("point" in proof or "thousands" in proof):
        row, name = proof["comma"]
        other, its = proof.get("point") or proof["thousands"]
        raise InputError(
            f"{row.where}, column {name}: {row.cells[name]!r} has a decimal comma and "
            f"{other.cells[its]!r} ({other.where.rpartition(', ')[2]}, column {its}) has not; "
            "write all fractions with a point"
        )
    comma = "comma" in proof
    found = []
    for row in rows:
        cells = dict(row.cells)
        for name in columns:
            value = cells.get(name, "")
            if _EITHER.fullmatch(value) and ("." if comma else ",") in value:
                sure = not comma and "thousands" in proof
                if not sure:
                    raise InputError(
                        f"{row.where}, column {name}: {value!r} may be thousands or a fraction; "
                        "write numbers without thousands separators and with a decimal point"
                    )
            cells[name] = _plain(value, comma)
        found.append(TableRow(row.where, {n: cells[n] for n in row.cells}))
    return found


def _signs(value: str) -> tuple[str, ...]:
    """What a cell says of its file: a decimal "point", a decimal "comma", commas at "thousands"."""
    if grouped := _GROUPED.fullmatch(value):
        return {".": ("point",), ",": ("comma",)}.get((grouped[2] or " ")[0], ())
    if _EITHER.fullmatch(value) or not ("," in value or "." in value):
        return ()
    if _COMMAS.fullmatch(value) and "," in value:
        return ("thousands",)
    if _DOTS.fullmatch(value) and (value.count(".") > 1 or "," in value):
        return ("comma",)
    if _COMMA_FRACTION.fullmatch(value):
        return ("comma",)
    return ("point",) if _PLAIN.fullmatch(value) else ()


def _plain(value: str, comma: bool) -> str:
    """One cell as `float` reads it; what is no number stays as it is."""
    if grouped := _GROUPED.fullmatch(value):
        return re.sub(_SPACE, "", grouped[1]) + (grouped[2] or "").replace(",", ".")
    if comma and (_DOTS.fullmatch(value) or _COMMA_FRACTION.fullmatch(value)):
        return value.replace(".", "").replace(",", ".")
    if not comma and _COMMAS.fullmatch(value):
        return value.replace(",", "")
    return value


# --- JSON


def _json(content: str, where: str, known: Collection[str]) -> list[TableRow]:
    """JSON Lines, an array of objects, or one object of columns (as pandas' `to_json` writes)."""
    stripped = content.strip()
    if stripped.startswith("["):
        return _records(_parsed(stripped, where), where, known)
    lines = re.split(r"\r\n|\n|\r", content)
    first = next(line for line in lines if line.strip())
    if _is_object(first) is None or sum(bool(line.strip()) for line in lines) == 1:
        value = _is_object(stripped)
        if value is not None and not any(name in known and _is_cell(value[name]) for name in value):
            return _records(_by_columns(value, where), where, known)
    filled = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    if len(filled) > MOST_ROWS:
        raise _too_many(where)
    rows = []
    for n, line in filled:
        place = f"{where}, line {n}"
        value = _parsed(line.removesuffix(","), place)
        rows += _records([value], place, known, place)
    return rows


def _is_object(text: str) -> dict[str, Any] | None:
    try:
        value = _loads(text.rstrip().removesuffix(","))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_cell(value: object) -> bool:
    return not isinstance(value, (dict, list))


def _by_columns(value: dict[str, Any], where: str) -> list[Any]:
    """Rows of an object that holds columns: by index, as lists, or pandas' "split" and "table"."""
    if isinstance(value.get("data"), list):
        names = value.get("columns")
        if not isinstance(names, list):
            return list(value["data"])
        if not all(isinstance(row, list) and len(row) == len(names) for row in value["data"]):
            raise InputError(f"{where}: its data has not one cell for each of its columns")
        return [dict(zip(map(str, names), row, strict=True)) for row in value["data"]]
    columns = {k: v for k, v in value.items() if isinstance(v, (dict, list))}
    keys = {tuple(v) if isinstance(v, dict) else tuple(range(len(v))) for v in columns.values()}
    if len(keys) != 1 or len(columns) != len(value):
        raise InputError(
            f"{where}: is one JSON object that holds no columns of one length; write one object a "
            "line (pandas: orient='records', lines=True)"
        )
    return [{name: column[key] for name, column in columns.items()} for key in keys.pop()]


def _records(
    value: Any, where: str, known: Collection[str], place: str | None = None
) -> list[TableRow]:
    if len(value) > MOST_ROWS:
        raise _too_many(where)
    rows = []
    for n, record in enumerate(value, 1):
        at = place or f"{where}, row {n}"
        if not isinstance(record, dict):
            raise InputError(f"{at}: a JSON object is needed, of columns and their values")
        columns = [_column(name, known) for name in record]
        _once(columns, at, known)
        rows.append(TableRow(at, dict(zip(columns, record.values(), strict=True))))
    return rows


def _parsed(text: str, where: str) -> Any:
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        at = where if text.count("\n") == 0 else f"{where}, line {error.lineno}"
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        reason = "is cut off" if cut else f"is not valid JSON ({error.msg}, column {error.colno})"
        raise InputError(f"{at}: {reason}; correct or remove it") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise InputError(f"{where}: is not valid JSON ({reason}); correct it") from None


def _loads(text: str) -> Any:
    """JSON with the NaN and Infinity that Python and pandas write; no key twice."""
    return json.loads(text, object_pairs_hook=files.no_repeats)
