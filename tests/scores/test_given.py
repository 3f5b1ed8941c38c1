"""Which column or array of a file from elsewhere is scored, in which order, and what is refused; nothing is guessed."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dica.files import UserError
from dica.scores.assignments import assignments_csv
from dica.scores.given import read_assignments


def refusal(path: Path, column: str = "") -> str:
    """Return what a file is refused with; a warning of numpy is a failure."""
    with warnings.catch_warnings(action="error"), pytest.raises(UserError) as error:
        read_assignments(path, column)
    return str(error.value).removeprefix(str(path))


def table(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "a.csv"
    path.write_text("\n".join([header, *rows]) + "\n", newline="")
    return path


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("label,pred", "'label' and 'pred'"),
        ("pred,label", "'pred' and 'label'"),
        ("label,class", "'label' and 'class'"),
        ("label,x", "'label' and 'x'"),
        ("x,Label", "'x' and 'Label'"),
        ("cluster,prediction", "'cluster' and 'prediction'"),
        ("assignment,label", "'assignment' and 'label'"),
        ("Cluster,Prediction", "'Cluster' and 'Prediction'"),
        ("cluster,target", "'cluster' and 'target'"),
        ("class,cluster", "'class' and 'cluster'"),
        ("prediction,groundTruth", "'prediction' and 'groundTruth'"),
        ("cluster,y_true", "'cluster' and 'y_true'"),
        ("true_label,prediction", "'true_label' and 'prediction'"),
        ("cluster,predicted_cluster", "'cluster' and 'predicted_cluster'"),
    ],
)
def test_columns_that_may_each_be_meant_are_refused_by_name(tmp_path: Path, header: str, named: str) -> None:
    path = table(tmp_path, header, "2,1", "2,0", "1,1")
    told = refusal(path)
    assert f"{named} may each be the clusters" in told
    assert "--column" in told
    for place, name in enumerate(header.split(",")):
        found = read_assignments(path, name)
        assert (found.values.tolist(), found.scored) == ([[2, 2, 1], [1, 0, 1]][place], f"column {name!r}")


@pytest.mark.parametrize(
    "header", ["cluster,cluster", "x,x,cluster", "cluster, Cluster", "label,label", "id,id,cluster"]
)
def test_a_doubled_name_is_refused_whatever_column_is_asked_for(tmp_path: Path, header: str) -> None:
    path = table(tmp_path, header, ",".join("0" for _ in header.split(",")))
    for column in ("", "cluster"):
        assert re.search(r"has 2 columns called '(cluster|x|label|id)'; keep one", refusal(path, column))


def test_columns_that_cannot_be_meant_do_not_disturb(tmp_path: Path) -> None:
    for header, row in (
        ("name,label,score", "a.png,{},0.25"),
        ("image,label", "{k},{}"),
        ("cluster,width", "{},32"),
        ("prediction,class_name", "{},cat"),
        (" Cluster ,confidence,remark", "{},1.0,"),
    ):
        path = table(tmp_path, header, *(row.format((k * 3) % 2, k=k) for k in range(3)))
        assert read_assignments(path).values.tolist() == [0, 1, 0], header


def test_the_table_of_own_images_is_read_by_its_column_cluster(tmp_path: Path) -> None:
    values, ones = np.array([1, 0, 1]), np.ones(3)
    path = tmp_path / "assignments.csv"
    path.write_text(assignments_csv(["b", "=a", "c"], values, ones, values[::-1], ones, ones))
    found = read_assignments(path)
    assert (found.values.tolist(), found.scored, found.names) == ([1, 0, 1], "column 'cluster'", ["b", "=a", "c"])


def test_what_is_scored_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("3\n1\n")
    np.savez(tmp_path / "one.npz", found=[3, 1])
    np.savez(tmp_path / "two.npz", test_assignment=[1], train_assignment=[3], other=[7])
    np.save(tmp_path / "a.npy", [3.0, 1.0])
    (tmp_path / "a.txt").write_text("3\r\n\r\n1\r\n")
    told = {
        "a.csv": "its only column",
        "one.npz": "array 'found'",
        "two.npz": "array 'train_assignment' and 'test_assignment'",
        "a.npy": "its array",
        "a.txt": "its numbers",
    }
    for name, scored in told.items():
        found = read_assignments(tmp_path / name)
        assert (found.values.tolist(), found.scored, found.order) == ([3, 1], scored, "as in the file")


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "cluster,pred", "1,2")
    assert "no column 'prid'; did you mean pred?" in refusal(path, "prid")
    (tmp_path / "a.txt").write_text("1\n")
    assert "only a csv has columns" in refusal(tmp_path / "a.txt", "cluster")
    assert "'a', 'b'; call one of them" in refusal(table(tmp_path, "a,b", "1,2"))
    assert "has no header" in refusal(table(tmp_path, "0,3", "1,2"))
    assert "numbers rows" in refusal(table(tmp_path, "index", "0", "1"))


INDEX_NAMES = ("index", "id", "", "Unnamed: 0", "idx", "image_id", "ID", " Index ")


@pytest.mark.parametrize("name", INDEX_NAMES)
def test_rows_are_put_in_the_order_of_an_index(tmp_path: Path, name: str) -> None:
    found = read_assignments(table(tmp_path, f"{name},cluster", "2,7", "0,5", "3,8", "1,6"))
    assert found.values.tolist() == [5, 6, 7, 8]
    assert found.order == (f"by column {name!r}" if name else "by the column without a name")
    found = read_assignments(table(tmp_path, f"cluster,{name or 'index'}", "7,0.0", "5,1.0"))
    assert found.values.tolist() == [7, 5]


@pytest.mark.parametrize("name", INDEX_NAMES)
@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        ("0 1 1 2", "a.csv:4: {} has 1 once more"),
        ("1 2 3 4", "a.csv:5: {} has 4"),
        ("0 1 2 100", "a.csv:5: {} has 100"),
        ("-1 0 1 2", "a.csv:2: {} has -1"),
        ("0 1 x 2", "a.csv:4: {} has no number"),
        ("-1 -2 -3 -4", "a.csv:2: {} has -1"),
    ],
)
def test_an_index_that_does_not_have_each_row_once_is_refused(
    tmp_path: Path, name: str, indices: str, problem: str
) -> None:
    path = table(tmp_path, f"{name},cluster", *(f"{index},1" for index in indices.split()))
    called = f"column {name!r}" if name else "the column without a name"
    told = f"{tmp_path / 'a.csv'}{refusal(path)}"
    assert problem.format(called) in told
    assert "4 rows have the indices 0 to 3, each once" in told


def test_an_index_with_an_empty_cell_is_refused_and_one_of_names_is_none(tmp_path: Path) -> None:
    assert ":3: column 'id' has no number" in refusal(table(tmp_path, "id,cluster", "0,1", ",1", "2,1"))
    found = read_assignments(table(tmp_path, "id,cluster", "b7,1", "a3,0"))
    assert (found.values.tolist(), found.order) == ([1, 0], "as in the file")


def test_columns_that_number_the_rows_differently_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, ",id,cluster", "0,2,1", "1,0,1", "2,1,1")
    assert "column 'id' numbers the rows in another order than the column without a name does" in refusal(path)
    path = table(tmp_path, "rank,cluster", "2,1", "0,1", "1,1")
    assert "column 'rank' numbers the rows in another order than that of the file" in refusal(path)
    found = read_assignments(table(tmp_path, "rank,index,cluster", "0,2,7", "2,0,5", "1,1,6"))
    assert found.values.tolist() == [5, 6, 7], "an index in an order of its own is meant"
    assert read_assignments(table(tmp_path, "rank,file,cluster", "1,b,7", "0,a,5")).names == ["b", "a"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["0,1", "1,2,3"], ":3: has 3 cells; its header has 2"),
        (["0,1", "1"], ":3: has 1 cells; its header has 2"),
        (["0,1,", "1,2"], ":2: has 3 cells; its header has 2"),
        (["", "0,1", "", "", "1"], ":6: has 1 cells; its header has 2"),
        (['"a\nb\nc",1', "1,2,3"], ":5: has 3 cells; its header has 2"),
        (["0,1", "1,"], ":3: lacks its number"),
        (["0,1", '1,"2'], ":3: not readable as csv"),
    ],
)
def test_surplus_and_missing_cells_are_refused_by_their_line(tmp_path: Path, rows: list[str], expected: str) -> None:
    assert refusal(table(tmp_path, "x,cluster", *rows)).startswith(expected)


def test_surplus_cells_of_a_single_column_are_refused(tmp_path: Path) -> None:
    assert refusal(table(tmp_path, "cluster", "1", "2,3")).startswith(":3: has 2 cells; its header has 1")
    assert refusal(table(tmp_path, "1", "2", "3,4")).startswith(":3: has 2 cells; one cell a row is needed")
    (tmp_path / "a.txt").write_text("1\n\n2 3\n4\n")
    assert refusal(tmp_path / "a.txt").startswith(":3: has several numbers; needs one a line")
    (tmp_path / "a.txt").write_text("\n1 2 3\n")
    assert read_assignments(tmp_path / "a.txt").values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("9" * 31, "is too large for a cluster index"),
        ("9" * 400, "is too large for a cluster index"),
        ("1e400", "is too large for a cluster index"),
        ("1e300", "is too large for a cluster index"),
        ("inf", "is too large for a cluster index"),
        ("-" + "9" * 31, "is no cluster index; indices start at 0"),
        ("-1e400", "is no cluster index; indices start at 0"),
        ("-1", "is no cluster index; indices start at 0"),
        ("nan", "is NaN; needs integer cluster indices"),
        ("0.5", "is no whole number; needs integer cluster indices"),
        ("1_0", "is no number"),
        ("x", "is no number"),
        ("٣", "is no number"),
    ],
)
def test_a_cell_that_is_no_index_is_named_with_its_line(tmp_path: Path, cell: str, problem: str) -> None:
    path = table(tmp_path, "name,cluster", "a,1", "", '"b\nc",2', f"d,{cell}")
    shown = cell if len(cell) <= 50 else f"{cell[:50]}…"
    assert refusal(path) == f":6: {shown!r} {problem}"
    (tmp_path / "a.txt").write_text(f"1\n\n2\n{cell}\n")
    assert refusal(tmp_path / "a.txt") == f":4: {shown!r} {problem}"


@pytest.mark.parametrize("large", ["5000000", "1e9", str(2**31), str(2**52)])
def test_more_clusters_than_samples_are_refused_by_their_line(tmp_path: Path, large: str) -> None:
    path = table(tmp_path, "name,cluster", "a,1", "", f"b,{large}", "c,0")
    assert refusal(path).startswith(f":4: has cluster {float(large):.15g} for 3 samples")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([0, np.nan, 1], ": sample 1 is NaN; needs integer"),
        ([0, 1, -np.inf], ": sample 2 is -inf; needs integer"),
        ([0, 0.5, np.nan], ": sample 1 is 0.5; needs integer"),
        ([0, 1e30, 1], ": sample 1 has cluster 1e+30 for 3 samples"),
        ([0, 1, -1e30], ": sample 2 has cluster -1e+30; indices start at 0"),
        (np.array([0, 2**63], np.uint64), ": sample 1 has cluster 9.22337203685478e+18 for 3 samples"),
        ([0, 1, 5_000_000], ": sample 2 has cluster 5000000 for 3 samples"),
        (["0", "1"], ": is of type <U1"),
        ([[0], [1]], ": has shape (2, 1)"),
        (3, ": has shape ()"),
        ([], ": is empty"),
        (np.zeros((0, 3)), ": is empty"),
    ],
)
def test_an_array_that_is_none_of_indices_is_refused_by_its_sample(tmp_path: Path, values, problem: str) -> None:
    np.save(tmp_path / "a.npy", values)
    found = refusal(tmp_path / "a.npy")
    assert found.startswith(problem.replace("3 samples", f"{np.size(values)} samples"))
    np.savez(tmp_path / "a.npz", train_assignment=values, test_assignment=[0, 1])
    assert refusal(tmp_path / "a.npz") == found.replace(": ", ": train_assignment: ", 1)


def test_files_that_are_no_arrays_are_told_in_own_words(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    np.savez(tmp_path / "packed.npz", a=[1])
    (tmp_path / "packed.npz").rename(tmp_path / "packed.npy")
    (tmp_path / "junk.npy").write_text("junk")
    (tmp_path / "empty.npy").touch()
    zipfile.ZipFile(tmp_path / "empty.npz", "w").close()
    told = {
        "objects.npy": "it holds Python objects",
        "objects.npz": "a.npy holds Python objects",
        "packed.npy": "it does not begin as one",
        "junk.npy": "it does not begin as one",
        "empty.npy": "is empty",
        "empty.npz": "is empty: it holds no array",
    }
    for name, problem in told.items():
        found = refusal(tmp_path / name)
        assert problem in found, name
        assert "pickle" not in found, name
