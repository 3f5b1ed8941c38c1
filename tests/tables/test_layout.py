"""Laid-out tables: lines, ranks, footnotes, and their Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

import factory
from dica.plan.artefacts import load_artefacts
from dica.tables import cells as tables
from dica.tables import layout, rendering


@pytest.fixture(scope="module")
def texts(example, frame):
    _, plan, artefacts = example
    return {a.address: rendering.render(a, frame, plan) for a in artefacts if a.kind == "table"}


def test_ours_stand_under_the_published_line(texts):
    lines = texts["dica table-2"]["md"].splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("| DRC"))
    assert "0.716" in lines[at]
    assert lines[at + 1].startswith("| ↳ here, mean of 3, 30 of 500 epochs |")
    assert lines[at + 1].count(" worse") == 3


def test_every_markdown_row_has_every_column(texts):
    for text in texts.values():
        rows = [line for line in text["md"].splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1


def test_best_and_second_among_published(texts):
    text = texts["imc-swav table-2"]["md"]
    assert "**89.7**" in text
    assert "<ins>89.1 ± 0.5</ins>" in text
    assert "**92.8**" not in text, "the supervised probe does not compete"
    assert "**0.898" in texts["dica table-1"]["md"], "without published numbers ours are ranked"


def test_controls_do_not_compete(root):
    (table,) = load_artefacts(root, ["dica table-2"])
    competing = {key for block in layout._blocks(table) for key in block}
    assert {row.key for row in table.rows} - competing == {"random-labels", "untrained", "supervised"}


def test_footnotes_are_shared(texts):
    text = texts["imc-swav table-2"]["md"]
    assert text.count("only one seed") == 1
    (number,) = re.findall(r"<sup>(\d)</sup> only one seed", text)
    assert text.count(f"<sup>{number}</sup>") == 7, "six cells and the note itself"


def test_latex_is_balanced_and_plain(texts):
    for text in texts.values():
        tex = text["tex"]
        bare = re.sub(r"\\[{}%&$#_]", "", tex)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert tex.isascii()
        body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
        columns = len(re.search(r"begin\{tabular\}\{l(r+)\}", tex)[1])
        for line in body:
            cells = re.sub(r"\\&", "", line).count("&")
            spans = sum(int(n) - 1 for n in re.findall(r"multicolumn\{(\d+)\}", line))
            assert cells + spans == columns, line


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(texts, tmp_path):
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    body = "\n".join(text["tex"] for text in texts.values())
    (tmp_path / "t.tex").write_text(head + "\n" + body + "\n\\end{document}\n")
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_escapes():
    assert rendering.tex_escape("a_b & 5% ± <x> λ") == r"a\_b \& 5\% $\pm$ $<$x$>$ ?"
    assert rendering.markdown_escape("a|b *c* <i>") == r"a\|b \*c\* \<i\>"


def test_html_escapes_reasons_and_links_to_runs(texts):
    html = texts["drc table-1"]["html"]
    assert "&lt;step 17&gt;" in html
    assert "<step 17>" not in html
    assert re.search(r'href="runs-drc\.html#with-[0-9a-f]{12}"', html)
    assert 'href="runs-drc.html#runs-drc-full-' in html, "where nothing was run"


def test_demo_commands_name_the_profile(example, frame):
    _, plan, artefacts = example
    demo = {**plan, "profile": "demo"}
    text = rendering.render(artefacts[0], frame, demo)["md"]
    assert "dica audit dica table-1 kmeans/digits/acc --profile params/demo.yaml" in text


def test_layout_of_a_plan_without_any_result(project):
    artefacts = load_artefacts(project, ["drc", "dica", "imc-swav"])
    plan = factory.make_plan(artefacts)
    frame = tables.cells(plan, project, "results", artefacts)
    counted = {"equal"}  # numbers of images, which need no run
    assert set(frame["verdict"]) - counted == {"not run", "published only"}
    for artefact in artefacts:
        if artefact.kind == "table" and artefact.paper != "imc-swav":  # whose first one describes data
            assert "not run" in rendering.render(artefact, frame, plan)["md"]


def test_where_all_are_equal_none_is_the_best(example, frame):
    _, plan, artefacts = example
    drc = next(a for a in artefacts if a.address == "drc table-1")
    printed = frame.assign(published=frame["published"].where(frame["published"] == "", "0.5"), published_std="")
    text = rendering.render(drc, printed, plan)["md"]
    lines = [line for line in text.splitlines() if line.startswith("| ") and " 0.5 | 0.5 | 0.5 | 0.5 |" in line]
    assert len(lines) > 5
    assert not any("**" in line or "<ins>" in line for line in lines)


def test_a_mean_below_nought_that_rounds_to_it_has_no_sign(example, frame):
    _, plan, artefacts = example
    drc = next(a for a in artefacts if a.address == "drc table-1")
    text = rendering.render(drc, frame.assign(value=-0.0001, best=-0.0001), plan)["md"]
    assert "0.000 ± " in text
    assert "-0.000" not in text


def test_code_in_a_note_is_printed_as_code():
    note = "Made by `dica data duplicates` of a_b <x>."
    assert rendering.html_prose(note) == "Made by <code>dica data duplicates</code> of a_b &lt;x&gt;."
    assert rendering.markdown_prose(note) == r"Made by `dica data duplicates` of a\_b \<x\>."
    assert rendering.tex_prose(note) == r"Made by \texttt{dica data duplicates} of a\_b $<$x$>$."
