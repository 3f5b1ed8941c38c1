"""What other tools read about the archive: made from one source, up to date, and accepted by their own validators."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

import validators
from dica.audit.metadata import CITATION, described
from dica.data import catalog
from dica.files import UserError, parse_json, read_json


@pytest.fixture(scope="module")
def files(root: Path) -> dict[Path, str]:
    return described(root)


@pytest.fixture
def copied(copied_params: Path, root: Path) -> Path:
    for name in (CITATION, "pyproject.toml"):
        shutil.copy(root / name, copied_params)
    return copied_params


def test_every_file_is_up_to_date(files, root: Path) -> None:
    stale = [path for path, text in files.items() if (root / path).read_text(encoding="utf-8") != text]
    assert not stale, "python workflow/scripts/metadata.py"
    assert {path.name for path in (root / "docs/croissant").iterdir()} == {
        path.name for path in files if path.parent.name == "croissant"
    }


def test_one_source_decides_what_all_of_them_say(copied: Path) -> None:
    path = copied / CITATION
    path.write_text(
        path.read_text().replace("version: 0.1.0", "version: 0.1.0\nrepository-code: https://example.org/x")
    )
    path.write_text(path.read_text().replace("The dica maintainers", "Somebody"))
    made = {name.name: parse_json(text, str(name)) for name, text in described(copied).items()}
    assert made["codemeta.json"]["codeRepository"] == "https://example.org/x"
    assert made["codemeta.json"]["author"] == [{"@type": "Organization", "name": "Somebody"}]
    assert made[".zenodo.json"]["creators"] == [{"name": "Somebody"}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("date-released: ", "date: ", "lacks date-released"),
        ("version: 0.1.0", "version: 0.0.9", "version is 0.0.9, the package has"),
    ],
)
def test_a_source_that_says_too_little_or_otherwise_is_one_line(copied: Path, old: str, new: str, message: str) -> None:
    path = copied / CITATION
    path.write_text(path.read_text().replace(f"\n{old}", f"\n{new}"))
    with pytest.raises(UserError, match=message):
        described(copied)


def test_a_data_set_says_what_proves_its_bytes(files, root: Path) -> None:
    for name, entry in catalog.load(root).items():
        made = parse_json(files[Path(f"docs/croissant/{name}.json")], name)
        for file in made.get("distribution", ()):
            assert file.get("sha256") or file["md5"]
        (splits,) = made["recordSet"]
        assert {row["splits/split"]: row["splits/images"] for row in splits["data"]} == entry["splits"]


def test_the_catalogue_of_workflows_is_told_how_it_is_used(root: Path) -> None:
    from dica.validation import load_yaml

    usage = load_yaml(root / ".snakemake-workflow-catalog.yml", ours=False)["usage"]
    assert usage["software-stack-deployment"] == {"conda": False, "apptainer": False, "apptainer+conda": False}


@pytest.mark.validators
def test_cffconvert_accepts_the_citation(root: Path) -> None:
    said = validators.run("cffconvert", "cffconvert", "--validate", cwd=root)
    assert "are valid" in said
    validators.note("cffconvert", CITATION, True)


@pytest.mark.validators
def test_reuse_finds_a_licence_for_every_file(root: Path) -> None:
    report = parse_json(validators.run("reuse", "reuse", "lint", "--json", cwd=root), "reuse")
    count = report["summary"]["files_total"]
    assert report["summary"]["compliant"]
    assert report["summary"]["files_with_licensing_info"] == count
    validators.note("reuse", "a licence for every file", True)


@pytest.mark.validators
def test_mlcroissant_accepts_every_data_set(root: Path) -> None:
    names = sorted((root / "docs/croissant").glob("*.json"))
    code = "import sys, mlcroissant\nfor name in sys.argv[1:]: print(mlcroissant.Dataset(jsonld=name).metadata.name)"
    said = validators.run("mlcroissant", "python", "-c", code, *names)
    assert said.split() == [read_json(name)["name"] for name in names]
    validators.note("mlcroissant", f"{len(names)} data sets", True)


@pytest.mark.validators
def test_validate_pyproject_accepts_the_package(root: Path) -> None:
    said = validators.run("validate-pyproject", "validate-pyproject", "pyproject.toml", cwd=root)
    assert said.startswith("Valid file")
    validators.note("validate-pyproject", "pyproject.toml", True)


@pytest.mark.validators
def test_snakemakes_own_linter_has_nothing_to_say(root: Path) -> None:
    from project import Project

    Project(root).run("snakemake", "--lint")
    validators.note("snakemake --lint", "the workflow", True, version("snakemake"))
