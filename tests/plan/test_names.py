"""Names in profiles and declared artefacts that nothing has: the message has the file and the place where they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dica.files import UserError
from dica.plan.artefacts import load_artefacts
from dica.plan.parameters import load_profile
from editable import edit, edit_yaml

TABLE = {
    "kind": "table",
    "title": "A table",
    "seeds": 1,
    "metrics": ["acc", "probe_acc"],
    "datasets": ["digits", {"dataset": "cifar10", "label": "CIFAR-10"}],
    "rows": [{"label": "Means", "method": "kmeans"}, {"label": "DRC", "method": "drc", "variant": "full"}],
}


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        (lambda t: t["rows"][0].update(method="kmean"), "rows.0 (Means): method", "unknown method 'kmean'"),
        (lambda t: t["rows"][1].update(variant="ful"), "rows.1 (DRC): variant", "unknown variant 'ful' of drc"),
        (
            lambda t: t["rows"][1].update(variants={"x=1": "full", "x=2": "ful"}),
            "rows.1 (DRC): variants.x=2",
            "unknown variant 'ful' of drc",
        ),
        (
            lambda t: t["rows"][1].update(runs={"probe_acc": {"method": "prob"}}),
            "rows.1 (DRC): runs.probe_acc",
            "unknown method 'prob'",
        ),
        (
            lambda t: t["rows"][1].update(runs={"probe_acc": {"method": "probe", "variant": "drx"}}),
            "rows.1 (DRC): runs.probe_acc",
            "unknown variant 'drx' of probe",
        ),
        (
            lambda t: t["rows"][0].update(stand_in={"method": "simcrl"}),
            "rows.0 (Means): stand_in",
            "unknown method 'simcrl'; did you mean simclr",
        ),
        (
            lambda t: t["rows"][0].update(stand_in={"method": "simclr", "variant": "fll"}),
            "rows.0 (Means): stand_in",
            "unknown variant 'fll' of simclr; did you mean full",
        ),
        (lambda t: t["rows"][0].update(datasets=["digit"]), "rows.0 (Means): datasets", "unknown data set 'digit'"),
        (
            lambda t: t["datasets"].append("digit"),
            "datasets.2",
            "unknown data set 'digit'; did you mean digits",
        ),
        (
            lambda t: t["datasets"][1].update(dataset="cifar01"),
            "datasets.1 (CIFAR-10)",
            "unknown data set 'cifar01'",
        ),
        (lambda t: t.update(options={"method": "tc"}), "options: method", "unknown method 'tc'"),
        (lambda t: t.update(options={"methods": {"digits": "tc"}}), "options: digits", "unknown method 'tc'"),
    ],
)
def test_an_unknown_name_is_told_by_file_table_and_row(copied_params: Path, change, place: str, problem: str) -> None:
    edit(copied_params, "artefacts/dica", lambda body: body["artefacts"].update({"table-99": TABLE}))
    load_artefacts(copied_params, ["dica table-99"])
    edit_yaml(copied_params / "params/artefacts/dica.yaml", lambda body: change(body["artefacts"]["table-99"]))
    told = re.escape(f"params/artefacts/dica.yaml: artefacts.table-99.{place}: {problem}")
    with pytest.raises(UserError, match=f"^{told}"):
        load_artefacts(copied_params, ["dica table-99"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"artefacts": ["dica tabel-1"]},
            "artefacts: params/artefacts/dica.yaml has no 'tabel-1'; did you mean table-1",
        ),
        ({"artefacts": ["dica", "dcia"]}, "artefacts: no paper 'dcia'; did you mean dica"),
        ({"artefacts": ["drc table-1-digit"]}, "artefacts: params/artefacts/drc.yaml has no 'table-1-digit'; did you"),
        ({"methods": ["kmean"]}, "methods: unknown method 'kmean'; did you mean kmeans"),
        ({"recorded_methods": ["kmean"]}, "recorded_methods: unknown method 'kmean'; did you mean kmeans"),
        ({"recorded_datasets": ["digit"]}, "recorded_datasets: unknown data set 'digit'; did you mean digits"),
        ({"overrides": {"kmean": {}}}, "overrides: unknown method 'kmean'; did you mean kmeans"),
        ({"runs": {"method": "kmean", "dataset": "digits", "seeds": 1}}, "runs.method: unknown method 'kmean'"),
        ({"runs": {"method": "kmeans", "dataset": "digit", "seeds": 1}}, "runs.dataset: unknown data set 'digit'"),
    ],
)
def test_an_unknown_name_in_a_profile_is_told_by_file_and_key(copied_params: Path, change: dict, problem: str) -> None:
    path = copied_params / "params/demo.yaml"
    load_profile(path, copied_params)
    edit_yaml(path, lambda body: body.update(change))
    with pytest.raises(UserError, match=re.escape(f"params/demo.yaml: {problem}")):
        load_profile(path, copied_params)


def test_artefacts_of_lower_rungs_may_be_named_in_a_profile(copied_params: Path) -> None:
    path = copied_params / "params/demo.yaml"
    edit_yaml(path, lambda body: body.update(artefacts=["drc table-1-digits"]))
    assert load_profile(path, copied_params)["artefacts"] == ["drc table-1-digits"]
