"""The files of the report; imports nothing, since Snakemake asks each time it parses the workflow."""

from __future__ import annotations

from collections.abc import Iterable

INDEX, CLAIMS, CONSISTENCY, STATISTICS = "index.html", "claims.html", "consistency.html", "statistics.html"
NUMBERS = "numbers.html"


def paper_page(paper: str) -> str:
    """File with the tables and figures of a paper."""
    return f"{paper}.html"


def runs_page(method: str) -> str:
    """File with the runs of a method."""
    return f"runs-{method}.html"


def all_pages(papers: Iterable[str], methods: Iterable[str]) -> list[str]:
    """Return every file of a report, in the order of its navigation."""
    ours = [*map(paper_page, sorted(set(papers))), *map(runs_page, sorted(set(methods)))]
    return [INDEX, CLAIMS, *ours, CONSISTENCY, STATISTICS, NUMBERS]
