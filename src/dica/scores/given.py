"""Assignments that another program wrote: which column or array is meant, and of which image a row is, is not guessed.

A csv has a header, or is one column of numbers. Its rows have as many cells as the header; `file` names the images, an
index column (0 to n-1, each once) puts the rows in order.
"""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dica.files import ARRAYS_LIMIT, UserError, load_arrays, plain_cell
from dica.scores.assignments import COLUMNS as OURS
from dica.scores.evaluation import SPLITS
from dica.validation import hint

LIMITS = {  # bytes; the labels of 1.3 million images fit in each, in a csv with long file names beside them
    ".npz": ARRAYS_LIMIT,
    ".npy": ARRAYS_LIMIT,
    ".csv": 256 * 2**20,
    ".txt": 16 * 2**20,
}
KINDS = tuple(LIMITS)
LABEL = "label"  # of clusters to some programs, of true classes to others
COLUMNS = ("assignment", "cluster", "prediction", LABEL)
FILE = "file"  # column of a csv that names the images: then the order of its rows does not matter
INDEX = re.compile(r"index|idx|ids?|image|img|sample|row|position|unnamed")  # what the words of an index column are
MEANT = re.compile(  # words in names of columns that may hold the clusters, or the classes that these are compared with
    r"assign(ed|ments?)|categor(y|ies)|class(es)?|clusters?|expected|gold|groundtruth|gt|labels?|output"
    r"|pred(s|icted|ictions?)?|real|reference|targets?|true|truth|y|yhat|ypred|ytrue"
)
NO_NUMBER = -(2**62)
LARGEST = 2**53  # up to which a float is a whole number of its own
MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Given:
    """One cluster a sample as a file has it.

    Attributes
    ----------
    values
        Cluster indices (n,), in the order of an index column, else in that of the file.
    scored
        Which part of the file they are, such as "column 'cluster'".
    order
        What orders them, in words.
    names
        Cells of the column `file`, in the same order; empty where there is none.
    """

    values: np.ndarray
    scored: str
    order: str = "as in the file"
    names: Sequence[str] = ()


def read_assignments(path: Path, column: str = "") -> Given:
    """Read one cluster index a sample.

    npz: the splits' `<split>_assignment` (train before test) or its only array; npy: the array; csv: the only column,
    or the one called assignment, cluster, prediction or label; txt: one number a line, or all in one line.

    Parameters
    ----------
    column
        The column of a csv that is meant, where several could be.

    Raises
    ------
    UserError
        If the file is missing or of another kind, if more than one column could be meant, or if it holds anything but
        indices from 0 on; the message names the line or the sample.
    """
    if path.suffix not in KINDS:
        raise UserError(f"{path}: of unknown kind; allowed: {', '.join(KINDS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size > LIMITS[path.suffix]:
        raise UserError(f"{path}: has {path.stat().st_size} bytes, at most {LIMITS[path.suffix]} are read")
    if path.suffix == ".csv":
        return _from_csv(path, column)
    if column:
        raise UserError(f"{path}: --column {column}: only a csv has columns")
    return {".npz": _from_npz, ".npy": _from_npy, ".txt": _from_txt}[path.suffix](path)


def _from_npz(path: Path) -> Given:
    arrays = load_arrays(path)
    if not arrays:
        raise UserError(f"{path}: is empty: it holds no array")
    names = [name for name in (f"{split}_assignment" for split in SPLITS) if name in arrays]
    if not names and len(arrays) > 1:
        needed = "needs train_assignment, test_assignment or one array"
        raise UserError(f"{path}: holds {', '.join(sorted(arrays))}; {needed}")
    names = names or list(arrays)
    parts = [_checked(arrays[name], f"{path}: {name}") for name in names]
    return Given(np.concatenate(parts), f"array {' and '.join(map(repr, names))}")


def _from_npy(path: Path) -> Given:
    with open(path, "rb") as file:
        if not (begins := file.read(len(MAGIC))):
            raise UserError(f"{path}: is empty")
    if begins != MAGIC:
        raise UserError(f"{path}: not a readable npy file: it does not begin as one; needs what numpy.save writes")
    try:
        values = np.array(np.lib.format.open_memmap(path, mode="r"))  # mapped first: a header can claim any shape
    except Exception as error:  # numpy has several errors for a damaged file
        if "Python objects" in str(error):
            raise UserError(f"{path}: not a readable npy file: it holds Python objects, not numbers") from None
        raise UserError(f"{path}: not a readable npy file ({error})") from None
    return Given(_checked(values, str(path)), "its array")


def _checked(values: np.ndarray, where: str) -> np.ndarray:
    """Return an array as indices; a refusal names the first sample that is none."""
    if not values.size:
        raise UserError(f"{where}: is empty: its shape is {values.shape}")
    if values.ndim != 1:
        raise UserError(f"{where}: has shape {values.shape}; needs one cluster index a sample, (n,)")
    if values.dtype.kind == "f":  # other programs write 3.0 for 3
        wrong = ~np.isfinite(values) | (values != np.floor(values))
        if wrong.any():
            sample = int(wrong.argmax())
            raise UserError(f"{where}: sample {sample} is {_shown(values[sample])}; needs integer cluster indices")
    elif values.dtype.kind not in "iu":
        raise UserError(f"{where}: is of type {values.dtype}; needs integer cluster indices")
    _require_indices(values, lambda sample: f"{where}: sample {sample}")
    return values.astype(np.int64)


def _shown(value: Any) -> str:
    return "NaN" if math.isnan(value) else f"{float(value):.15g}"


def _require_indices(values: np.ndarray, place: Any) -> None:
    """Refuse whole numbers that are no cluster indices; `place` says of the k-th where it stands."""
    if values.min() < 0:
        sample = int(values.argmin())
        raise UserError(f"{place(sample)} has cluster {_shown(values[sample])}; indices start at 0")
    if values.max() >= max(1000, values.size):
        sample = int(values.argmax())
        told = f"cluster {_shown(values[sample])} for {values.size} samples"
        raise UserError(f"{place(sample)} has {told}; indices, not labels, are meant")


def _from_txt(path: Path) -> Given:
    lines, values = array("q"), array("q")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for line, text in enumerate(file, start=1):
            for number in text.split():
                values.append(_index(number, f"{path}:{line}"))
                lines.append(line)
    found = _of_text(path, values, lines)
    several = np.flatnonzero(np.diff(lines) == 0)
    if several.size and lines[0] != lines[-1]:
        raise UserError(
            f"{path}:{lines[several[0]]}: has several numbers; needs one a line, or all of them in one line"
        )
    return Given(found, "its numbers")


def _of_text(path: Path, values: array, lines: array) -> np.ndarray:
    if not values:
        raise UserError(f"{path}: is empty: it holds no number")
    found = np.array(values, dtype=np.int64)
    _require_indices(found, lambda sample: f"{path}:{lines[sample]}:")
    return found


def is_number(text: str) -> bool:
    """Whether a text reads as a number, as other programs write one too."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _whole(text: str) -> int | None:
    """Return the whole number that a cell holds, 3.0 too; None where it holds none, or a huge one."""
    if not is_number(text):
        return None
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < LARGEST else None


def _index(text: str, place: str) -> int:
    """Return the cluster index that a cell holds."""
    value = _whole(text)
    if value is not None and value >= 0:
        return value
    shown = repr(text if len(text) <= 50 else f"{text[:50]}…")
    if not is_number(text):
        raise UserError(f"{place}: {shown} is no number" if text.strip() else f"{place}: lacks its number")
    if math.isnan(float(text)):
        raise UserError(f"{place}: {shown} is NaN; needs integer cluster indices")
    if float(text) < 0:
        raise UserError(f"{place}: {shown} is no cluster index; indices start at 0")
    if float(text) >= LARGEST:
        raise UserError(f"{place}: {shown} is too large for a cluster index")
    raise UserError(f"{place}: {shown} is no whole number; needs integer cluster indices")


def _from_csv(path: Path, column: str) -> Given:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, strict=True)
        try:
            rows: Iterator[tuple[int, list[str]]] = ((reader.line_num, row) for row in reader if row)
            line, header = next(rows, (0, [""]))
            if not line:
                raise UserError(f"{path}: is empty")
            table = _Table(path, header, column)
            if table.has_no_header:
                rows = chain([(line, header)], rows)
            table.read(rows)
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not readable as csv ({error})") from None
    return table.given()


@dataclass
class _Table:
    """A csv with its header: what is read of its rows, and what refuses them."""

    path: Path
    header: list[str]
    column: str
    lines: array = field(default_factory=lambda: array("q"))  # of the file, by row
    values: array = field(default_factory=lambda: array("q"))
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [name.strip().casefold() for name in self.header]
        self.has_no_header = len(self.header) == 1 and is_number(self.header[0]) and not self.column
        self.scored = self._chosen()
        others = [place for place in range(len(self.names)) if place != self.scored and self.names[place] != FILE]
        self.numbers = {place: array("q") for place in others}  # columns of whole numbers
        self.indices = [place for place in others if self._is_index(place)]

    def _is_index(self, place: int) -> bool:
        words = _words(self.header[place])
        return all(map(INDEX.fullmatch, words)) if words else place == 0 and not self.names[0]

    def _chosen(self) -> int:
        """Return the place of the column that is scored."""
        if twice := [name for name in self.names if name and self.names.count(name) > 1]:
            raise self._refusal(f"has {self.names.count(twice[0])} columns called {twice[0]!r}; keep one of them")
        if self.column:
            if (name := self.column.strip().casefold()) not in self.names:
                raise self._refusal(f"--column: no column {self.column!r}; {hint(self.column, self.header)}")
            return self.names.index(name)
        if len(self.names) == 1:
            if self._is_index(0) and self.names[0]:
                raise self._refusal(f"has only the column {self.header[0]!r}, which numbers rows; needs their clusters")
            return 0
        known = [place for place, name in enumerate(self.names) if name in COLUMNS]
        if not known:
            if all(map(is_number, self.header)):
                raise self._refusal(f"has no header; call one of its {len(self.header)} columns {COLUMNS[1]!r}")
            there = ", ".join(map(repr, self.header))
            named = f"call one of them {' or '.join(COLUMNS)}, or name it with --column"
            raise self._refusal(f"has the columns {there}; {named}")
        if self.names[known[0]] == LABEL:
            known += [place for place in range(len(self.names)) if place not in known and self._may_be_meant(place)]
        self._require_one(known)
        return known[0]

    def _may_be_meant(self, place: int) -> bool:
        """Whether a column's name is one of clusters or classes."""
        return self.names[place] not in OURS and any(map(MEANT.fullmatch, _words(self.header[place])))

    def _require_one(self, places: list[int]) -> None:
        if len(places) > 1:
            meant = " and ".join(repr(self.header[place]) for place in sorted(places))
            raise self._refusal(f"{meant} may each be the clusters; name the column with --column, or keep one")

    def _refusal(self, problem: str) -> UserError:
        return UserError(f"{self.path}: {problem}")

    def read(self, rows: Iterator[tuple[int, list[str]]]) -> None:
        """Take the cells of all rows, each with the line that it ends on."""
        by_name = self.names.index(FILE) if FILE in self.names and self.names[self.scored] != FILE else None
        for line, row in rows:
            place = f"{self.path}:{line}"
            if len(row) != len(self.header):
                told = "one cell a row is needed" if self.has_no_header else f"its header has {len(self.header)}"
                raise UserError(f"{place}: has {len(row)} cells; {told}")
            self.lines.append(line)
            self.values.append(_index(row[self.scored], place))
            if by_name is not None:
                self.files.append(plain_cell(row[by_name]))
            for other, kept in list(self.numbers.items()):
                number = _whole(row[other])
                if number is None and other not in self.indices:
                    del self.numbers[other]
                else:
                    kept.append(NO_NUMBER if number is None else number)

    def given(self) -> Given:
        """Return what was read, in order."""
        values = _of_text(self.path, self.values, self.lines)
        rows = np.arange(len(values))
        numbers = {place: np.array(kept, dtype=np.int64) for place, kept in self.numbers.items()}
        counting = {place: found for place, found in numbers.items() if np.array_equal(np.sort(found), rows)}
        if not self.column:
            unclear = self.names[self.scored] == LABEL
            others = [place for place in numbers if place not in self.indices]
            self._require_one(
                [self.scored, *(p for p in others if self._may_be_meant(p) or (unclear and p not in counting))]
            )
        scored = "its only column" if self.has_no_header else f"column {self.header[self.scored]!r}"
        if self.files:
            return Given(values, scored, f"by column {FILE!r}", self.files)
        by = self._index_column(numbers, counting, rows)
        if by is None:
            return Given(values, scored)
        return Given(values[np.argsort(numbers[by])], scored, f"by {self._called(by)}")

    def _index_column(
        self, numbers: dict[int, np.ndarray], counting: dict[int, np.ndarray], rows: np.ndarray
    ) -> int | None:
        """Return the column that numbers the rows; None if there is none.

        Parameters
        ----------
        numbers, counting
            The columns of whole numbers, and those that have each of `rows` once.

        Raises
        ------
        UserError
            If it does not have each index once, or if another column contradicts it or the order of the file.
        """
        for place in self.indices:
            if place not in counting and (numbers[place] != NO_NUMBER).any():  # else its cells are names of some kind
                raise self._wrong_index(place, numbers[place])
        known = [place for place in self.indices if place in counting]
        order = numbers[known[0]] if known else rows
        asked = counting if np.array_equal(order, rows) else known  # a program numbers rows as they are by itself
        for place in asked:
            if not np.array_equal(numbers[place], order):
                than = f"{self._called(known[0])} does" if known else "that of the file"
                raise self._refusal(
                    f"{self._called(place)} numbers the rows in another order than {than}; if it has the places in the "
                    f"data set, keep it alone and call it 'index', else remove it"
                )
        return known[0] if known else None

    def _called(self, place: int) -> str:
        return f"column {self.header[place]!r}" if self.names[place] else "the column without a name"

    def _wrong_index(self, place: int, found: np.ndarray) -> UserError:
        """Say which row of an index column is the first that does not fit."""
        repeated: np.ndarray = np.ones(len(found), dtype=bool)
        repeated[np.unique(found, return_index=True)[1]] = False
        row = int((repeated | (found < 0) | (found >= len(found))).argmax())
        number = int(found[row])
        what = "no number" if number == NO_NUMBER else f"{number} once more" if repeated[row] else str(number)
        return UserError(
            f"{self.path}:{self.lines[row]}: {self._called(place)} has {what}; {len(found)} rows have the indices 0 to "
            f"{len(found) - 1}, each once (remove the column if the rows are in the order of the data set)"
        )


def _words(name: str) -> set[str]:
    """Return the words of a column's name: those of `trueLabel` and `TRUE_label` are true and label."""
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
