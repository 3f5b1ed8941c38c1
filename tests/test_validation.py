"""Parameter files mean what a person reads in them, for every reader of YAML, or they are refused with the line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from dica import validation
from dica.files import UserError
from dica.validation import load_yaml, validate


def read(folder: Path, text: str, ours: bool = True) -> object:
    path = folder / "f.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(path, ours)


@pytest.mark.parametrize(
    "value",
    [
        *("010", "007", "00", "-012", "09", "01.5", "1_000", "1_0.5", "0x10", "0o17", "0b11"),
        *("1:30", "12:30:45", "190:20:30.15", "01:30", "2026-11-28", "2026-1-2 10:00:00", "2026-01-02T10:00:00Z"),
        *("yes", "No", "ON", "off", "True", "FALSE", "~", "Null", ".inf", "-.INF", ".NaN"),
    ],
)
def test_what_yaml_reads_otherwise_than_a_person_is_refused_with_its_line(tmp_path, value):
    for text in (
        f"first: 1\nsecond:\n  third: {value}\n",
        f"first: 1\n\nlist: [1, {value}]\n",
        f"a: b\n# c\n{value}: 1\n",
    ):
        with pytest.raises(UserError, match=r"f\.yaml:3: ") as error:
            read(tmp_path, text)
        assert f"{value}: " in str(error.value)
        assert "\n" not in str(error.value)
    assert read(tmp_path, f'a: "{value}"\n') == {"a": value}
    assert read(tmp_path, f"a: |-\n  {value}\n") == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("12", 12), ("-3", -3), ("0", 0), ("+5", 5), ("1e-4", 1e-4), ("1e3", 1000.0), (".5e3", 500.0), ("0.10", 0.1)),
        *(("true", True), ("false", False), ("null", None), ("", None)),
        *(
            ("y", "y"),
            ("none", "none"),
            ("n02085936", "n02085936"),
            ("1.2.3", "1.2.3"),
            ("v1_0", "v1_0"),
            ("no way", "no way"),
        ),
        *(
            ("0591bbc475f18996cb591df6ae383dca", "0591bbc475f18996cb591df6ae383dca"),
            ("a: b", None),
            ("\u0661\u0662", "\u0661\u0662"),
        ),
    ],
)
def test_what_a_person_reads_is_read(tmp_path, text, value):
    if text == "a: b":
        text, value = "{a: b}", {"a": "b"}
    found = read(tmp_path, f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


def test_the_thousands_comma_in_a_list_is_noticed(tmp_path):
    with pytest.raises(UserError, match=r"f\.yaml:1: 000: a number with leading zeros"):
        read(tmp_path, "epochs: [1,000]\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "key given twice: a"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", "key given twice: <<"),
        ("x: &x {a: 1}\ny: {a: 2, <<: *x}\n", "f.yaml:2: `<<` takes one mapping and comes first"),
        ("x: &x {a: 1}\ny: {<<: [*x, {a: 2}]}\n", "f.yaml:2: `<<` takes one mapping and comes first"),
        ("a: !!int '10'\n", "f.yaml:1: tag:yaml.org,2002:int"),
        ("a: !mine 1\n", "f.yaml:1: !mine"),
        ("\n" + "[" * 500 + "]" * 500, "f.yaml:2: nested too deeply"),
        ("\n" + "[" * 200_000, "f.yaml:2: nested too deeply"),
        ("a: =\n", "f.yaml:1: "),
        (f"name: {'x' * 1001}", "a text of 1001 characters; at most 1000 are read"),
    ],
)
def test_other_surprises_are_refused(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert said in str(error.value)
    assert len(str(error.value)) < 1000


def test_what_comes_after_a_merge_wins(tmp_path):
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n"
    assert read(tmp_path, text) == {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}, "c": {"x": 2, "y": 3}}


def test_files_of_other_programs_are_read_by_their_rules(tmp_path):
    assert read(tmp_path, "bn_refresh: off\n", ours=False) == {"bn_refresh": "off"}
    with pytest.raises(UserError, match="nested too deeply"):
        read(tmp_path, "[" * 500, ours=False)


def test_every_committed_file_reads_alike_in_yaml_1_1_up_to_exponents(root):
    """PyYAML by itself takes 1e-4 for text; nothing else of ours depends on who reads it."""

    def same(ours: object, plain: object) -> bool:
        if isinstance(ours, dict):
            return isinstance(plain, dict) and list(ours) == list(plain) and all(same(ours[k], plain[k]) for k in ours)
        if isinstance(ours, list):
            return isinstance(plain, list) and len(ours) == len(plain) and all(map(same, ours, plain))
        if isinstance(ours, float) and isinstance(plain, str):
            return math.isclose(ours, float(plain))
        return type(ours) is type(plain) and ours == plain

    files = [*(root / "params").rglob("*.yaml"), *(root / "workflow/schemas").glob("*.yaml")]
    assert len(files) > 30
    for path in files:
        assert same(load_yaml(path), yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)), path


def test_a_block_is_checked_once_and_what_only_equals_it_is_checked_too(tmp_path, monkeypatch):
    folder = tmp_path / "workflow/schemas"
    folder.mkdir(parents=True)
    block = "{type: object, properties: {n: {type: number, multipleOf: 1}}, additionalProperties: false}"
    (folder / "a.schema.yaml").write_text(f"type: object\nproperties:\n  block: {block}\n")
    checked = []
    whole = Draft202012Validator.VALIDATORS["multipleOf"]
    monkeypatch.setitem(
        Draft202012Validator.VALIDATORS, "multipleOf", lambda *given: checked.append(given[2]) or whole(*given)
    )
    for _ in range(3):
        validate({"block": {"n": 1}}, "a", "here", tmp_path)
    assert checked == [1]
    for _ in range(2):  # True == 1, but is no number
        with pytest.raises(UserError, match=r"here: block\.n: True"):
            validate({"block": {"n": True}}, "a", "here", tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 1e30}, r"epochs: 1e\+30 is not of type 'integer'"),
        ({"epochs": 2.0}, r"epochs: 2\.0 is not of type 'integer'"),
        ({"epochs": True}, r"epochs: True is not of type 'integer'"),
        ({"schedule": {"kind": "steps", "milestones": [3]}}, "schedule: missing key 'factor'"),
        ({"schedule": {"kind": "inverse"}}, "schedule: missing key 'decay', 'power'"),
        ({"normalisation": {"mean": [0.5], "std": [0.0]}}, r"normalisation\.std\.0: 0\.0 is less"),
    ],
)
def test_parameters_that_no_run_could_work_with_are_refused(root, change, said):
    defaults = load_yaml(root / "params/tcc.yaml")["defaults"]
    known = {**defaults, "num_clusters": 3, "revision": 1, "views": {name: [] for name in defaults["views"]}}
    validate(known, "tcc", "here", root)
    with pytest.raises(UserError, match=f"^here: {said}"):
        validate({**known, **change}, "tcc", "here", root)


def test_a_long_message_is_cut_between_words() -> None:
    words = "".join(f"word{k} " for k in range(1000))
    head, tail = validation.short(words).split(" … ")
    assert words.startswith(f"{head} ")
    assert words.strip().endswith(f" {tail}")
    assert len(validation.short("x" * 5000)) <= validation.MESSAGE_LIMIT + 3
