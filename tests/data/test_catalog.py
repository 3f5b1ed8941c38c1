"""The catalogue of data sets: what is refused, what identifies a set, and the one that is shipped."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

import archives
from archives import change, entry, images, project, source
from dica.data import catalog
from dica.data.__main__ import main
from dica.data.prepare import prepare
from dica.files import UserError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "cifer"}, r"mini\.kind: 'cifer' is not one of: cifar, stl10"),
        ({"colour": 1}, r"mini: unknown key 'colour'; allowed: .*label"),
        ({"splits": {"train": 0}}, r"mini\.splits\.train: 0 is less than"),
        ({"class_list": "x"}, r"mini: class_list does not apply to this kind"),
        ({"prepare": {}}, r"mini\.prepare: missing key 'labels'"),
        ({"prepare": {"labels": "label", "size": 8}}, r"prepare\.size is 8, but mini\.image_size is 32"),
        ({"sources": [{"format": "binary", "files": [{"file": "../x", "md5": "0" * 32}]}]}, r"files\.0\.file"),
        ({"sources": [{"format": "binary", "files": [{"file": "x"}]}]}, r"files\.0"),
        ({"fingerprint": "abc"}, r"mini\.fingerprint"),
    ],
)
def test_catalogue_errors_name_file_and_key(home, values, message):
    change(home, **values)
    with pytest.raises(UserError, match=message) as error:
        catalog.load(home)
    assert str(home / "params/datasets.yaml") in str(error.value)


def test_broken_missing_and_unknown_catalogue_entries(home):
    with pytest.raises(UserError, match=r"no data set 'maxi'; did you mean mini\? there are: mini"):
        catalog.entry(home, "maxi")
    (home / "params/datasets.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"datasets\.yaml:\d: did not find expected node"):
        catalog.load(home)
    (home / "params/datasets.yaml").unlink()
    with pytest.raises(UserError, match="no such file"):
        catalog.load(home)


def test_data_id_depends_on_what_decides_the_content_and_on_nothing_else(home):
    def now() -> str:
        return catalog.data_id(catalog.entry(home, "mini"))

    known = now()
    change(home, label="other", note="other", licence="other", normalisation={"mean": [0.1] * 3, "std": [0.2] * 3})
    assert now() == known
    change(home, splits={"train": 4, "test": 2})
    assert now() != known
    change(home, fingerprint="ab" * 32)
    assert now() == "ab" * 32


def test_a_folder_without_fingerprint_has_no_identity_until_one_is_declared(home, capsys):
    folder = home / "data/raw/photos"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(archives.encode(images(1, 6, 6, number)[0]))
    one = entry(
        "folder", [{"format": "folder", "folder": "data/raw/photos"}], {"train": 2}, 6, prepare={"labels": "none"}
    )
    project(home, mini=one)
    with pytest.raises(UserError, match="fingerprint mini"):
        catalog.data_id(catalog.entry(home, "mini"))
    assert main(["prepare", "mini", "--root", str(home)]) == 0
    capsys.readouterr()
    assert main(["fingerprint", "mini", "--root", str(home)]) == 0
    change(home, **yaml.safe_load(capsys.readouterr().out.strip()))
    assert prepare("mini", home)["data_id"] == catalog.data_id(catalog.entry(home, "mini"))


def test_an_alternative_source_is_taken_when_its_file_is_there(home):
    data = images(5, 32, 32), np.arange(5), images(2, 32, 32, seed=1), np.arange(2)
    path = archives.cifar10_python(home / "data/raw/python.tar.gz", *data)
    first = {"format": "binary", "files": [{"file": "absent.tar.gz", "md5": "0" * 32, "get": "ask"}]}
    change(home, sources=[first, source(path, "python")])
    assert prepare("mini", home)["sources"][0]["file"] == "python.tar.gz"
    path.unlink()
    with pytest.raises(UserError, match=r"absent\.tar\.gz.*ask.*python\.tar\.gz"):
        prepare("mini", home)


def test_the_shipped_catalogue_is_valid_and_complete(root):
    entries = catalog.load(root)
    expected = (
        "cifar10 cifar20 cifar100 stl10 imagenet10 imagenet-dogs imagenet50 imagenet100 imagenet200 tiny-imagenet"
    )
    assert {*expected.split(), "digits", "cifar10-jpeg"} <= set(entries)
    assert len({catalog.data_id(one) for one in entries.values()}) == len(entries)
    lists = {name: one["wnids"] for name, one in entries.items() if "wnids" in one}
    assert set(lists["imagenet50"]) < set(lists["imagenet100"]) < set(lists["imagenet200"])
    assert lists["imagenet10"][0] == "n02056570"
    for one in entries.values():
        assert len(one["normalisation"]["mean"]) == len(one["normalisation"]["std"]) == one["channels"]


def test_dvc_pointers_agree_with_the_catalogue(root):
    declared = {
        file["file"]: file
        for one in catalog.load(root).values()
        for alternative in one["sources"]
        for file in alternative.get("files", [])
    }
    pointers = sorted((root / "data/raw").glob("*.dvc"))
    assert pointers
    for pointer in pointers:
        (out,) = yaml.safe_load(pointer.read_text())["outs"]
        assert pointer.name == f"{out['path']}.dvc"
        assert (out["md5"], out["size"]) == (declared[out["path"]]["md5"], declared[out["path"]]["size"])
        assert out["hash"] == "md5"
