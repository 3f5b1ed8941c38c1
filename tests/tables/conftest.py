"""A project with some finished runs and the cells of its tables."""

from __future__ import annotations

import pytest

import factory
from dica.tables import cells as tables


@pytest.fixture(scope="session")
def example(tmp_path_factory, root):
    return factory.example_project(tmp_path_factory.mktemp("project"), root)


@pytest.fixture(scope="session")
def frame(example):
    project, plan, artefacts = example
    return tables.cells(plan, project, "results", artefacts)


@pytest.fixture
def project(tmp_path, root):
    return factory.make_project(tmp_path, root)
