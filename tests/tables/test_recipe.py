"""What a table says of a recipe that is not the paper's."""

from __future__ import annotations

from pathlib import Path

from dica.plan.artefacts import load_artefacts
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from dica.tables.recipe import differences, recipe_notes


def test_each_kind_of_difference_is_named_once() -> None:
    here = {"a": 1, "b": {"x": True, "y": 0.5, "z": [1]}, "c": None, "views": {"p": []}, "epochs": 3, "d": {"k": 1}}
    paper = {"a": 2, "b": {"x": False, "y": 0.5, "z": [2]}, "c": "k", "views": {"p": [1]}, "epochs": 9, "e": 1.0}
    assert differences(here, paper) == [
        *("a 1 (2)", "b.x on (off)", "other b.z", "c none (k)", "other d", "e none (1)", "other views")
    ]
    assert differences(here, here) == []


def test_the_digits_say_what_they_changed_and_a_papers_table_does_not(root: Path) -> None:
    plan = make_plan(load_profile(root / "params/archive.yaml", root), root)
    artefacts = {artefact.address: artefact for artefact in load_artefacts(root, ["dica", "tcc"])}
    notes = recipe_notes(artefacts["dica table-1"], plan)
    (tcc,) = [note for note in notes if note.startswith("TCC")]
    assert "temperature 0.2 (1)" in tcc
    assert "other views" in tcc
    assert not any(note.startswith("K-means") for note in notes), "as everywhere"
    assert recipe_notes(artefacts["tcc table-2"], plan) == []
