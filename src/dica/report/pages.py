"""The report: static, self-contained HTML pages with every table, figure and run of a plan, and how each came to be.

One page a paper, one a method for its runs, an overview with a search box, and two pages for the consistency of the
published numbers and for the statistics. Nothing is loaded from elsewhere; without JavaScript all of it can be read.
"""

from __future__ import annotations

import base64
import csv
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from dica.data.paths import labels_file
from dica.files import UserError, atomic_write_text, read_json
from dica.plan.artefacts import Artefact
from dica.plan.made import TOLD
from dica.plan.planned import Run, load_runs
from dica.plan.rungs import RUNGS
from dica.report import glossary, prose
from dica.report.evidence import Evidence
from dica.report.runs import commit_of, device_of, duration, groups_of
from dica.runs.files import RECORD
from dica.scores.given import is_number
from dica.scores.stats import RULE, VERDICTS
from dica.tables import layout, links, rendering
from dica.tables.drawn import said
from dica.tables.words import METRIC_LABELS, protocol_notes

TITLE = "Deep image clustering archive"
METRICS = ("acc", "nmi", "ari")
HEADLINES = 2  # tables on the overview
MOST_ROWS = 400  # of a CSV that a page shows; the file has the rest
LISTINGS = {  # (file, value of its column `kind`): heading and what it says; others are shown under their own name
    ("consistency", "triple"): (
        "ACC, NMI and ARI printed together",
        "Whether one partition of balanced classes can have all three: each bounds the others. Impossible means that "
        "the printed ARI or NMI lies below the least value that the printed ACC leaves, rounding allowed.",
    ),
    ("consistency", "disagreement"): (
        "The same number printed differently",
        "Numbers of one method on one data set that differ between two papers.",
    ),
    ("consistency", "remark"): (
        "Remarks on printed numbers and claims",
        "Claims that a paper's own table contradicts, misprints, reruns and unlike protocols.",
    ),
    ("consistency", "own"): ("Our own runs", "The same bounds held against the runs of this archive."),
    ("intervals", ""): (
        "Intervals",
        "95 % intervals: of our means over seeds, and of each seed's number over images.",
    ),
    ("pairs", ""): (
        "Paired tests between methods",
        "Two methods on the same data set, paired by seed or by image. p holm is corrected for all comparisons by "
        "one test and metric on a data set; least p is the smallest that so few seeds can give.",
    ),
    ("stability", ""): (
        "Stability between seeds",
        "ARI between the clusterings of two seeds of the same method, over all pairs of seeds: 1 = the same partition.",
    ),
}


def write_report(
    artefacts: Sequence[Artefact],
    frame: pd.DataFrame,
    plan: dict[str, Any],
    root: Path,
    results: str,
    folder: Path,
    graph: str,
) -> list[Path]:
    """Write every page and return the paths; pages of an older plan are removed.

    Parameters
    ----------
    artefacts
        What is shown, in order; the figures among them have been drawn.
    frame
        Cells, as from `tables.cells`.
    plan, root, results
        The plan, the project root and the results root relative to it.
    folder
        Where the pages go.
    graph
        The graph of the rules as SVG, as from `rulegraph.svg`.

    Raises
    ------
    UserError
        If a figure has not been drawn.
    """
    texts = render(artefacts, frame, plan, root, results, graph)
    for stale in set(folder.glob("*.html")) - {folder / name for name in texts}:
        stale.unlink()
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    return [folder / name for name in texts]


def render(
    artefacts: Sequence[Artefact], frame: pd.DataFrame, plan: dict[str, Any], root: Path, results: str, graph: str
) -> dict[str, str]:
    """Return the text of every page by file name; parameters as for `write_report`."""
    runs = load_runs(plan, root, results)
    groups = groups_of(frame, plan, runs, root)
    papers = list(dict.fromkeys(artefact.paper for artefact in artefacts))
    names = links.all_pages(papers, groups)
    known = {artefact.address for artefact in artefacts}
    shared = {
        "title": TITLE + ("" if plan["profile"] == "archive" else f" ({plan['profile']})"),
        "papers": [(links.paper_page(paper), paper) for paper in sorted(papers)],
        "methods": [(links.runs_page(method), method) for method in sorted(groups)],
        "known": known,
        "metrics": METRICS,
        "metric_labels": METRIC_LABELS,
    }
    evidence = Evidence(artefacts, frame, plan, root, results)
    sections = {artefact.address: _section(artefact, evidence, runs) for artefact in artefacts}
    contexts = {
        links.INDEX: ("index", _overview(artefacts, sections, evidence, runs, groups, graph)),
        links.CLAIMS: ("claims", evidence.context()),
        links.NUMBERS: ("prose", prose.context(root / TOLD, known)),
    }
    for paper in papers:
        mine = [section for section in sections.values() if section["artefact"].paper == paper]
        contexts[links.paper_page(paper)] = ("paper", _paper(mine, frame))
    for method, found in groups.items():
        contexts[links.runs_page(method)] = (
            "runs",
            {"heading": f"Runs of {method}", "method": method, "groups": found},
        )
    tables = root / results / "tables"
    for name, heading, files in (
        (links.CONSISTENCY, "Consistency of the published numbers", [tables / "consistency.csv"]),
        (links.STATISTICS, "Statistics", sorted((tables / "statistics").glob("*.csv"))),
    ):
        shown = [listing for path in files if path.is_file() for listing in _listings(path, tables)]
        contexts[name] = ("listings", {"heading": heading, "listings": shown})
    env = rendering.environment()
    return {name: _page(env, name, *contexts[name], shared) for name in names}


def _page(env: jinja2.Environment, name: str, template: str, context: dict[str, Any], shared: dict[str, Any]) -> str:
    return env.get_template(f"{template}.html.j2").render({"here": name, **shared, **context})


# --- papers ----------------------------------------------------------------------------------------------------


def _section(artefact: Artefact, evidence: Evidence, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what a page shows of one table or figure."""
    frame, plan, root, results = evidence.frame, evidence.plan, evidence.root, evidence.results
    section = {
        "anchor": f"{artefact.paper}-{artefact.name}",
        "artefact": artefact,
        "state": "not regenerated",
        "table": "",
        "image": "",
        "text": "",
        "notes": [],
        "files": [],
        "not_run": {},
    }
    if not artefact.regenerated:
        return section
    if not evidence.has_something(artefact):
        return {**section, "state": "not run", "not_run": evidence.not_run(artefact)}
    if artefact.kind == "table":
        mine = frame[(frame["paper"] == artefact.paper) & (frame["artefact"] == artefact.name)]
        ours = mine[mine["method"] != ""]
        section["state"] = (
            f"{int((ours['n'] > 0).sum())} of {len(ours)} cells run" if len(ours) else "published numbers"
        )
        section["table"] = Markup(rendering.render(artefact, frame, plan)["html"])
        section["files"] = [f"../tables/{artefact.paper}/{artefact.name}.{kind}" for kind in rendering.FORMATS]
        return section
    path = root / results / "figures" / artefact.paper / f"{artefact.name}.svg"
    mine = [run for run in runs if artefact.address in run.plan["needed_by"]]
    section["state"] = f"{sum(run.metrics is not None for run in mine)} of {len(mine)} runs" if mine else "drawn"
    section["image"], section["text"] = _figure(path)
    section["notes"] = protocol_notes(artefact, plan)
    section["files"] = [f"../figures/{artefact.paper}/{artefact.name}.{kind}" for kind in ("svg", "png")]
    return section


def _figure(path: Path) -> tuple[str, str]:
    """Return a drawn figure as data URI, and the words that `figures.to_bytes` wrote into it."""
    if not path.is_file():
        raise UserError(f"{path}: has not been drawn; run: snakemake --cores all light")
    data = path.read_bytes()
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}", said(data).words


def _paper(sections: list[dict[str, Any]], frame: pd.DataFrame) -> dict[str, Any]:
    artefact = sections[0]["artefact"]
    mine = frame[frame["paper"] == artefact.paper]
    return {
        "heading": artefact.paper_title,
        "paper": artefact.paper,
        "sections": sections,
        "verdicts": {mark: count for mark, count in counts(mine).items() if count and mark != "published only"},
        "filter_methods": sorted(set(mine["method"]) - {""}),
    }


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Return the number of cells by verdict, in the order of `VERDICTS`."""
    found = frame["verdict"].value_counts()
    return {mark: int(found.get(mark, 0)) for mark in VERDICTS}


# --- overview --------------------------------------------------------------------------------------------------


def _overview(
    artefacts: Sequence[Artefact],
    sections: dict[str, dict[str, Any]],
    evidence: Evidence,
    runs: Sequence[Run],
    groups: dict[str, list[dict[str, Any]]],
    graph: str,
) -> dict[str, Any]:
    frame, root = evidence.frame, evidence.root
    return {
        "heading": "",
        "sentence": evidence.sentence(),
        "numbers": evidence.numbers,
        "shown": {f"shown, {RUNGS[rung]}": count for rung, count in evidence.shown.items()},
        "claims": evidence.verdicts,
        "rungs": RUNGS,
        "verdict_words": glossary.VERDICTS,
        "loss_parts": glossary.LOSS_PARTS,
        "run_counts": run_counts(runs),
        "counts": counts(frame),
        "rule": RULE,
        "coverage": _coverage(artefacts, frame),
        "headlines": [sections[address]["table"] for address in _headline_tables(frame)],
        "done": _done(runs, root),
        "missing": _missing(runs, root),
        "failures": [(run.plan, run.failure) for run in runs if run.failure],
        "graph": Markup(graph),
        "index": _search_index(sections, frame, groups),
    }


def run_counts(runs: Sequence[Run]) -> dict[str, int]:
    """Return how many runs are planned, finished, failed and absent."""
    finished = sum(run.metrics is not None for run in runs)
    failed = sum(run.failure is not None for run in runs)
    return {"planned": len(runs), "finished": finished, "failed": failed, "not run": len(runs) - finished - failed}


def _coverage(artefacts: Sequence[Artefact], frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one line a paper: what is declared, what is regenerated, and the verdicts."""
    lines = []
    for paper in sorted({artefact.paper for artefact in artefacts}):
        mine = [artefact for artefact in artefacts if artefact.paper == paper]
        lines.append(
            {
                "paper": paper,
                "title": mine[0].paper_title,
                "page": links.paper_page(paper),
                "tables": sum(artefact.kind == "table" and not artefact.rung for artefact in mine),
                "figures": sum(artefact.kind == "figure" and not artefact.rung for artefact in mine),
                "skipped": sum(not artefact.regenerated for artefact in mine),
                "counts": counts(frame[frame["paper"] == paper]),
            }
        )
    return lines


def _headline_tables(frame: pd.DataFrame) -> list[str]:
    """Return the tables for the overview: own ones first, mostly run, of several methods, each about other images."""
    planned = frame[frame["method"] != ""]
    groups = planned.groupby(["paper", "artefact"], sort=False)
    shares, methods = groups["n"].apply(lambda counts: (counts > 0).mean()), groups["method"].nunique()
    ranked = sorted(
        shares[shares > 0].index, key=lambda place: (place[0] != "dica", shares[place] < 0.5, methods[place] < 2)
    )
    first: dict[frozenset[str], str] = {}
    for paper, name in ranked:
        first.setdefault(frozenset(groups.get_group((paper, name))["dataset"]), f"{paper} {name}")
    return list(first.values())[:HEADLINES]


def _done(runs: Sequence[Run], root: Path) -> list[dict[str, Any]]:
    """Return one line a data set and method that has finished runs: how many, where, how long, with which code."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.plan["dataset"], run.plan["method"]), []).append(run)
    lines = []
    for (dataset, method), members in sorted(found.items()):
        finished = [run for run in members if run.metrics is not None]
        records = [read_json(path) for run in finished if (path := root / run.path / RECORD).is_file()]
        if not finished:
            continue
        seconds = [record["seconds"] for record in records if record.get("seconds") is not None]
        lines.append(
            {
                "dataset": dataset,
                "method": method,
                "link": f"{links.runs_page(method)}#{layout.group_with(finished[0].plan['id'])}",
                "finished": len(finished),
                "planned": len(members),
                "variants": len({run.plan["variant"] for run in finished}),
                "devices": sorted({device_of(record) for record in records}),
                "time": duration(statistics.median(seconds) if seconds else None),
                "commits": sorted({commit_of(record)[:7] for record in records}),
            }
        )
    return lines


def _missing(runs: Sequence[Run], root: Path) -> list[dict[str, Any]]:
    """Return one line a data set with runs that were not made, and why."""
    absent: dict[str, list[Run]] = {}
    for run in runs:
        if run.metrics is None and not run.failure:
            absent.setdefault(run.plan["dataset"], []).append(run)
    lines = []
    for dataset, members in sorted(absent.items()):
        prepared = (root / labels_file(dataset)).is_file()
        methods: dict[str, int] = {}
        for run in members:
            methods[run.plan["method"]] = methods.get(run.plan["method"], 0) + 1
        reason = "prepared, not trained yet" if prepared else "its images have not been prepared for this archive"
        lines.append({"dataset": dataset, "runs": len(members), "methods": sorted(methods.items()), "reason": reason})
    return lines


def _search_index(
    sections: dict[str, dict[str, Any]], frame: pd.DataFrame, groups: dict[str, list[dict[str, Any]]]
) -> list[list[str]]:
    """Return [kind, text, link] of every table, figure, line of a table on a data set, and run."""
    entries = []
    for address, section in sections.items():
        artefact = section["artefact"]
        page = links.paper_page(artefact.paper)
        entries.append([artefact.kind, f"{address}: {artefact.title}", f"{page}#{section['anchor']}"])
    for (paper, name, _, _), cells in frame.groupby(["paper", "artefact", "row", "column"], sort=False):
        entries.append(["cell", *_cell_entry(list(cells.itertuples(index=False)), f"{paper}-{name}")])
    for method, found in groups.items():
        for group in found:
            names = ", ".join(group["variants"])
            for run in group["runs"]:
                text = f"{method} {group['dataset']} {names}, seed {run['seed']}, {run['id']}"
                text += f": ACC {run['headline']['acc']:.3f}"
                entries.append(["run", text, f"{links.runs_page(method)}#run-{run['id']}"])
    return entries


def _cell_entry(cells: Sequence[Any], anchor: str) -> tuple[str, str]:
    """Return text (it begins as the cell's address does) and link of one line of a table: to its runs, or itself."""
    first = cells[0]
    numbers = []
    for cell in cells:
        ours = f" here {cell.value:.3f}" if cell.n else ""
        printed = f" published {cell.published}" if cell.published else ""
        numbers.append(f"{cell.metric.upper()}{ours}{printed}")
    verdicts = ", ".join(dict.fromkeys(cell.verdict for cell in cells))
    text = f"{first.paper} {first.artefact} {first.row}/{first.column}, {first.label} on {first.dataset_label}: "
    text += f"{'; '.join(numbers)} ({verdicts})"
    run = next((cell for cell in cells if cell.n), None)
    if run is None:
        return text, f"{links.paper_page(first.paper)}#{anchor}"
    return text, layout.runs_link(run)


# --- CSV files -------------------------------------------------------------------------------------------------


def _listings(path: Path, tables: Path) -> list[dict[str, Any]]:
    """Return a CSV file as a page prints it: one listing, or one for each value of its first column `kind`."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if not rows or header[0] != "kind":
        return [_listing(path, tables, "", header, rows)]
    kinds = dict.fromkeys(row[0] for row in rows)
    return [_listing(path, tables, kind, header[1:], [row[1:] for row in rows if row[0] == kind]) for kind in kinds]


def _listing(path: Path, tables: Path, kind: str, header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    """Return lines with headings in words and numbers to the right; columns that are empty throughout are left out."""
    name = f"{path.stem} {kind}".strip()
    heading, about = LISTINGS.get((path.stem, kind), (_words(name).capitalize(), ""))
    kept = [k for k in range(len(header)) if any(row[k] for row in rows) or not rows]
    return {
        "anchor": name.replace(" ", "-"),
        "heading": heading,
        "about": about,
        "header": [(_words(header[k]), all(is_number(row[k]) for row in rows if row[k])) for k in kept],
        "rows": [[_short(row[k]) for k in kept] for row in _shown(header, rows)],
        "count": len(rows),
        "file": f"../tables/{path.relative_to(tables).as_posix()}",
    }


def _shown(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Return at most `MOST_ROWS` lines, of each data set as many."""
    if len(rows) <= MOST_ROWS or "dataset" not in header:
        return rows[:MOST_ROWS]
    place = header.index("dataset")
    groups = {name: [row for row in rows if row[place] == name] for name in dict.fromkeys(row[place] for row in rows)}
    share = max(1, MOST_ROWS // len(groups))
    return [row for group in groups.values() for row in group[:share]]


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _short(text: str) -> str:
    """Return a number of more than four digits after the point with four, or in powers of ten; other text as it is."""
    if not re.fullmatch(r"[+-]?\d+\.\d{5,}(e[+-]?\d+)?|[+-]?\d+(\.\d+)?e[+-]?\d+", text):
        return text
    number = float(text)
    return f"{number:.4f}" if abs(number) >= 0.001 or not number else f"{number:.1e}"
