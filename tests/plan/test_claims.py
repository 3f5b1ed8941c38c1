"""The declared claims of the five papers, and what a bad declaration says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from dica.files import UserError
from dica.plan.claims import Claim, alike, load_claims
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan

DECLARED = "params/claims/drc.yaml"


@pytest.fixture(scope="module")
def claims(root: Path) -> list[Claim]:
    return load_claims(root)


@pytest.fixture
def declared(copied_params: Path, claims: list[Claim], monkeypatch) -> Path:
    """Parameters whose claims can be spoilt; the artefacts, which take long to read, are those of the checkout."""
    artefacts = {member.artefact.address: member.artefact for claim in claims for member in claim.members}
    monkeypatch.setattr("dica.plan.claims.load_artefacts", lambda *_: list(artefacts.values()))
    return copied_params


def test_the_five_papers_have_claims_of_every_kind_most_of_them_also_on_the_digits(claims) -> None:
    paper = [claim for claim in claims if claim.rung == "paper"]
    assert len({claim.name for claim in claims}) == len(paper) >= 60
    assert min(Counter(claim.paper for claim in paper).values()) >= 10
    assert {claim.kind for claim in claims} == {"order", "dominance", "worst", "trend", "stability"}
    assert sum(claim.rung == "digits" for claim in claims) >= 50


def test_every_row_of_a_claim_has_planned_runs_and_what_is_compared_is_on_the_same_images(claims, root: Path) -> None:
    plan = make_plan(load_profile(root / "params/archive.yaml", root), root)
    planned = {(run["method"], variant, run["dataset"]) for run in plan["runs"] for variant in run["variants"]}
    for claim in claims:
        for member in claim.members:
            assert (*member.runs_of, member.column.dataset) in planned, member.address
        if len({member.row.key for member in claim.members}) > 1:
            assert all(len({m.column.dataset for m in group}) == 1 for group in claim.groups), claim.name
    groups = alike(plan)
    full = next(
        run for run in plan["runs"] if (run["method"], run["dataset"], run["variant"]) == ("drc", "digits", "full")
    )
    seeds = [run["seed"] for run in groups[full["id"]]]
    assert seeds == sorted(set(seeds))
    assert len(seeds) >= 5  # of two artefacts that ask for three and five


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "best"}, r"drc-8\.kind"),
        ({"kind": "trend"}, "direction: a trend has one"),
        ({"direction": "rising"}, "direction: a trend has one"),
        ({"metric": "accuracy"}, r"drc-8\.metric"),
        ({"margin": 0}, r"drc-8\.margin"),
        ({"at": {"paper": {"artefact": "drc table-9", "rows": ["drc"]}}}, "no artefact 'drc table-9'"),
        (
            {"at": {"paper": {"artefact": "drc table-2", "rows": ["drc", "drc-without-fa"]}}},
            "did you mean.*drc-without-af",
        ),
        ({"at": {"paper": {"artefact": "drc table-2", "rows": ["drc"]}}}, "two rows at least"),
        (
            {"at": {"paper": {"artefact": "drc table-2", "rows": ["drc", "drc-without-af"], "columns": ["cifar11"]}}},
            "no column 'cifar11'",
        ),
        (
            {"at": {"paper": {"artefact": "imc-swav table-2", "rows": ["imc-swav", "adc"]}}},
            "nothing is run for imc-swav table-2 adc",
        ),
    ],
)
def test_a_bad_claim_is_one_line_that_names_file_and_key(declared: Path, change: dict, message: str) -> None:
    body = yaml.safe_load((declared / DECLARED).read_text())
    body["claims"]["drc-8"].update(change)
    (declared / DECLARED).write_text(yaml.safe_dump(body))
    with pytest.raises(UserError, match=message) as error:
        load_claims(declared, ["drc"])
    assert DECLARED in str(error.value)
    assert "\n" not in str(error.value)


def test_a_claim_is_named_after_its_paper(declared: Path) -> None:
    text = (declared / DECLARED).read_text()
    (declared / DECLARED).write_text(text.replace("  drc-8:", "  tcc-8:"))
    with pytest.raises(UserError, match=r"tcc-8: its id must be drc-NUMBER"):
        load_claims(declared, ["drc"])
    with pytest.raises(UserError, match="no paper 'dcr'"):
        load_claims(declared, ["dcr"])
