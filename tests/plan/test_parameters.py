"""Parameter files: resolution order, and one clear error for each way of getting them wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dica import validation
from dica.files import UserError
from dica.plan import parameters as config
from dica.plan.plan import methods_of
from dica.validation import load_yaml
from editable import edit

PROFILE = {
    "name": "t",
    "results": "results",
    "artefacts": ["dica"],
    "determinism": "seeded",
    "methods": ["drc"],
    "recorded_datasets": ["digits"],
    "overrides": {},
}


def test_later_blocks_win_key_by_key(copied_params: Path) -> None:
    def change(body: dict) -> None:
        body["datasets"]["digits"] = {"epochs": 7, "optimizer": {"weight_decay": 0.5}}
        body["variants"]["odd"] = {"lr": 0.25}

    edit(copied_params, "drc", change)
    profile = {**PROFILE, "overrides": {"drc": {"epochs": 3}}}
    params = config.resolve("drc", "odd", "digits", profile, copied_params)
    assert params["epochs"] == 3, "the profile has the last word"
    assert params["lr"] == 0.25, "the variant overrides the default"
    assert params["optimizer"]["weight_decay"] == 0.5, "the data set's block reaches into mappings"
    assert params["optimizer"]["name"] == "adam", "its siblings stay"
    assert params["num_clusters"] == 10, "null takes the data set's number of classes"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda b: b["defaults"].update(epoch=3), ["params/drc.yaml", "defaults", "'epoch'", "allowed:", "epochs"]),
        (lambda b: b["defaults"].update(epochs="many"), ["params/drc.yaml", "epochs", "many"]),
        (lambda b: b["defaults"].update(lr=-1), ["params/drc.yaml", "lr", "-1"]),
        (lambda b: b["defaults"]["backbone"].update(width=4), ["params/drc.yaml", "backbone.width", "4", "8"]),
        (lambda b: b["defaults"]["backbone"].update(name="vgg"), ["params/drc.yaml", "backbone.name", "resnet18"]),
        (lambda b: b["datasets"].update(mnist={}), ["params/drc.yaml", "mnist", "cifar10"]),
        (lambda b: b["variants"].update(x={"views": {"origin": []}}), ["variants.x", "'origin'", "original"]),
        (lambda b: b.pop("revision"), ["params/drc.yaml", "revision"]),
        (lambda b: b.update(note="x"), ["params/drc.yaml", "'note'", "allowed:"]),
    ],
)
def test_a_spoilt_method_file_names_file_key_and_what_is_allowed(
    copied_params: Path, change, expected: list[str]
) -> None:
    edit(copied_params, "drc", change)
    with pytest.raises(UserError) as error:
        config.resolve("drc", "full", "digits", PROFILE, copied_params)
    for part in expected:
        assert part in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "given twice: a"),
        ("a: [1\n", "f.yaml:2"),
        ("- !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("\xff", "f.yaml"),
    ],
)
def test_unreadable_yaml_names_the_file(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"f\.yaml") as error:
        validation.load_yaml(path)
    assert expected in str(error.value)


def test_numbers_and_words_are_read_as_people_mean_them(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("lr: 1e-4\nbn_refresh: 'off'\nflag: true\ncount: 12\nwnid: n02085936\n")
    body = validation.load_yaml(path)
    assert body == {"lr": 1e-4, "bn_refresh": "off", "flag": True, "count": 12, "wnid": "n02085936"}


def test_unknown_names_list_the_known_ones(root: Path) -> None:
    for arguments, known in [
        (("drx", "full", "digits"), "drc"),
        (("drc", "fulll", "digits"), "full"),
        (("drc", "full", "digit"), "digits"),
    ]:
        with pytest.raises(UserError, match=known):
            config.resolve(*arguments, PROFILE, root)


def test_profile_overrides_are_checked_as_well(root: Path) -> None:
    for overrides, part in [({"drc": {"epoch": 1}}, "'epoch'"), ({"dcr": {}}, "'dcr'")]:
        with pytest.raises(UserError, match=part):
            config.validate_profile({**PROFILE, "overrides": overrides}, "p.yaml", root)


# Parts that differ from digits-n36 and cifar10-n1000 in their number of images alone
ALIKE = {f"digits-n{n}" for n in (54, 72, 90, 108, 126, 150)} | {f"cifar10-n{n}" for n in range(1500, 5000, 500)}


def test_every_method_resolves_on_every_dataset(root: Path) -> None:
    """Variants resolve on every data set that the method says something of; on the others they are as on the first."""
    profile, datasets = config.load_profile(root / "params/archive.yaml", root), config.load_datasets(root)
    for method in config.method_names(root):
        body, others = config.load_method(method, root), [name for name in datasets if name not in ALIKE]
        spoken_of = dict.fromkeys([others[0], *body["datasets"]])
        for variant in body["variants"]:
            for dataset in others if variant == "full" else spoken_of:
                said = _refusal(method, variant, dataset, profile, root)
                grey = datasets[dataset]["channels"] == 1 and dataset not in body["datasets"]  # 8 pixels of one colour
                assert not said or (grey and "the images have" in said)


def _refusal(method: str, variant: str, dataset: str, profile: dict, root: Path) -> str:
    try:
        config.resolve(method, variant, dataset, profile, root)
    except UserError as error:
        return str(error)
    return ""


def test_what_methods_share_is_told_once(root: Path) -> None:
    """The level field is level, and no file spells a pipeline that has a name."""
    profile = config.load_profile(root / "params/archive.yaml", root)
    for variant, dataset in (("level-8", "digits"), ("level-32", "cifar10")):
        found = [config.resolve(name, variant, dataset, profile, root) for name in ("crlc", "drc", "imc-swav", "tcc")]
        for key in ("epochs", "batch_size", "drop_last"):
            assert len({params[key] for params in found}) == 1, (variant, key)
        assert {(p["backbone"]["name"], p["backbone"]["width"]) for p in found} == {
            (found[0]["backbone"]["name"], found[0]["backbone"]["width"])
        }
        assert len({str(p["views"].get("augmented") or p["views"]["high"]) for p in found}) == 1
    named = config.load_shared(root)["pipelines"]
    for path in sorted((root / "params").glob("*.yaml")):
        body = validation.load_yaml(path)
        blocks = (
            [body["defaults"], *body["datasets"].values(), *body["variants"].values()] if "variants" in body else []
        )
        views = [view for block in blocks for view in ((block or {}).get("views") or {}).values()]
        assert not [name for name, pipeline in named.items() if pipeline in views], path


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"shared": "level8"}, r"shared: params/shared\.yaml has no block 'level8'; did you mean level-8"),
        ({"shared": ["level-8"]}, r"shared: params/shared\.yaml has no block \['level-8'\]"),
        (
            {"views": {"test": "centre-97"}},
            r"views\.test: params/shared\.yaml has no pipeline 'centre-97'; did you mean",
        ),
    ],
)
def test_a_shared_name_that_does_not_exist(root: Path, block: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"^params/drc\.yaml: variants\.full: {message}"):
        config.with_shared(block, "params/drc.yaml: variants.full", root)


def test_own_values_win_over_shared_ones(root: Path) -> None:
    found = config.with_shared({"shared": "level-8", "epochs": 3, "backbone": {"sobel": False}}, "here", root)
    assert (found["epochs"], found["batch_size"]) == (3, 128)
    assert found["backbone"] == {"name": "resnet8", "stem": "cifar", "width": 16, "sobel": False}
    assert "shared" not in found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s["takes"].append("trainde"), "takes: no group and no key 'trainde'.*did you mean trained"),
        (lambda s: s.update(optionl=[]), "unknown key 'optionl'; allowed: .*optional"),
        (lambda s: s.update(optional=["repeat"]), "optional: no key 'repeat' here; did you mean repeats"),
    ],
)
def test_a_spoilt_schema_of_a_method_is_named_with_what_is_known(copied_params: Path, change, expected: str) -> None:
    edit(copied_params, "../workflow/schemas/drc.schema", change)
    with pytest.raises(UserError, match=rf"workflow/schemas/drc\.schema\.yaml: {expected}"):
        config.load_method("drc", copied_params)


def test_a_schema_of_a_method_says_only_what_is_its_own(root: Path) -> None:
    shared = load_yaml(root / "workflow/schemas/training.schema.yaml")["$defs"]
    for name in config.method_names(root):
        schema = load_yaml(root / f"workflow/schemas/{name}.schema.yaml")
        same = [key for key, value in schema.get("properties", {}).items() if value == shared.get(key)]
        same += [
            key
            for key, value in schema.get("properties", {}).items()
            if list(value) == ["$ref"] and key in str(value).split("/")
        ]
        assert "takes" in schema, name
        assert not same, f"{name}: take {same} from training.schema.yaml with `takes`"


def test_every_schema_key_has_a_description(root: Path) -> None:
    def keys_without(schema: object, path: str) -> list[str]:
        if not isinstance(schema, dict):
            return []
        found = []
        for key, value in schema.get("properties", {}).items():
            if "description" not in value and "$ref" not in value:
                found.append(f"{path}.{key}")
        for key, value in schema.items():
            if key not in ("if", "then", "else"):  # conditions on keys that are described elsewhere
                found += keys_without(value, f"{path}.{key}")
        return found

    for path in sorted((root / "workflow/schemas").glob("*.yaml")):
        assert not keys_without(validation.load_yaml(path), path.name)


def test_all_methods_of_a_profile_are_those_with_planned_runs(root: Path) -> None:
    plan = {"runs": [{"method": name} for name in ("tcc", "drc", "tcc")]}
    profile = config.load_profile(root / "params/archive.yaml", root)
    assert profile["methods"] == "all"
    assert methods_of(profile, plan) == ["drc", "tcc"]
    assert methods_of(PROFILE, plan) == ["drc"]
    with pytest.raises(UserError, match=r"params/x\.yaml: methods: 'all' was expected"):
        config.validate_profile({**PROFILE, "methods": "drc"}, "params/x.yaml", root)


@pytest.mark.parametrize("named", ["../../etc", "kmeans"])
def test_a_file_of_parameters_is_named_as_its_method(copied_params: Path, named: str) -> None:
    edit(copied_params, "simclr", lambda body: body.update(method=named))
    with pytest.raises(UserError, match=r"params/simclr.yaml: method: is '.*', must equal the file name 'simclr'"):
        config.load_method("simclr", copied_params)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("views", "augmented", 0, "op"), "afine", "views.augmented.0: op 'afine' is not one of"),
        (("views", "augmented", 0, "scale"), 0.75, "views.augmented.0: affine: scale is 0.75 but must be [low, high]"),
        (("views", "augmented", 0, "scale"), [1.2, 0.8], "must be [low, high] with 0 < low <= high"),
        (("views", "augmented", 1, "brigthness"), 0.4, "views.augmented.1: color_jitter has no key 'brigthness'"),
        (("views", "augmented", 1, "hue"), 4, "color_jitter: hue is 4 but must be a number in [0, 0.5]"),
        (("views", "augmented", 1), {"op": "cutout"}, "cutout needs the key 'size'"),
        (("views", "augmented", 1), {"op": "channel_shuffle", "p": 1}, "channel_shuffle has no key 'p'; it takes none"),
        (("normalisation",), {"mean": [0.5], "std": [0.0]}, "normalisation.std.0: 0.0 is less than or equal to"),
        (("normalisation",), {"mean": [129], "std": [0.2]}, "normalisation: mean: 129 must be a number in 0..1"),
        (("normalisation",), {"mean": [0.5, 0.5], "std": [0.2]}, "mean has 2 and std 1 numbers"),
    ],
)
def test_a_slip_in_views_or_statistics_is_told_before_anything_runs(
    copied_params: Path, place: tuple, value: object, said: str
) -> None:
    file = copied_params / "params/drc.yaml"
    body = yaml.safe_load(file.read_text())
    block = body["datasets"]["digits"]
    block["views"] = {"augmented": [{"op": "affine", "scale": [0.8, 1.2]}, {"op": "color_jitter", "brightness": 0.4}]}
    *above, last = place
    for key in above:
        block = block[key]
    block[last] = value
    file.write_text(yaml.safe_dump(body))
    with pytest.raises(UserError) as error:
        config.load_method("drc", copied_params)
    assert str(error.value).startswith(f"params/drc.yaml: datasets.digits: {place[0]}")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("step", "fits"),
    [
        ({"op": "random_crop", "size": 40}, False),
        ({"op": "random_crop", "size": 40, "padding": 4}, True),
        ({"op": "center_crop", "size": 33}, False),
        ({"op": "random_resized_crop", "size": 320}, True),
    ],
)
def test_a_crop_is_not_larger_than_the_images(root: Path, step: dict, fits: bool) -> None:
    profile = {**PROFILE, "overrides": {"drc": {"views": {"augmented": [step]}}}}
    if fits:
        config.resolve("drc", "full", "cifar10", profile, root)
        return
    with pytest.raises(
        UserError, match=rf"views\.augmented\.0: {step['op']}: size is {step['size']} but the images have 32"
    ):
        config.resolve("drc", "full", "cifar10", profile, root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"results": "src"}, "results: 'src'"),
        ({"results": "../elsewhere"}, "results: '../elsewhere'"),
        ({"recorded_datasets": ["digit"]}, "recorded_datasets: unknown data set 'digit'"),
        (
            {"results": "results"},
            "results: 'results' is the folder of params/archive.yaml; two profiles cannot share one",
        ),
    ],
)
def test_a_profile_writes_into_results_and_names_what_there_is(copied_params: Path, change: dict, said: str) -> None:
    file = copied_params / "params/demo.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    with pytest.raises(UserError) as error:
        config.load_profile(file, copied_params)
    assert str(error.value).startswith(str(file))
    assert said in str(error.value)
