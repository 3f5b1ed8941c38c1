"""What a drawn figure says of itself: its words, what drew it, its runs. Imports nothing heavy."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

from dica.files import UserError, read_bytes

DRAWN_WITH = re.compile(r"<dc:title>dica with ([^<]*)</dc:title>")
SEAL = re.compile(r"sha256:([0-9a-f]{64})")
WORDS = re.compile(r"<dc:description>(.*?)</dc:description>", re.DOTALL)
RUNS = re.compile(r"<dc:source>runs ([^<]*)</dc:source>")


@dataclass(frozen=True)
class Drawn:
    """The metadata of an SVG; empty texts where it lacks them."""

    words: str
    drawn_with: str
    seal: str
    runs: tuple[str, ...]


def read_words(path: Path | str) -> Drawn:
    """Return what the SVG of a figure says.

    Raises
    ------
    UserError
        If the file cannot be read, or its end is missing.
    """
    svg = read_bytes(path)
    if not svg.rstrip().endswith(b"</svg>"):
        raise UserError(f"{path}: its end is missing; draw it again: snakemake --cores all light")
    return said(svg)


def said(svg: bytes) -> Drawn:
    """Return what an SVG says."""
    text = svg.decode("utf-8", errors="replace")
    found = [pattern.search(text) for pattern in (WORDS, DRAWN_WITH, SEAL, RUNS)]
    words, drawn_with, seal, runs = (html.unescape(match[1]) if match else "" for match in found)
    return Drawn(words, drawn_with, seal, tuple(runs.split()))
