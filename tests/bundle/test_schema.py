"""`cascade.bundle.schema`: the declaration, and that the published schema says the same."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from cascade.bundle.json_schema import SCHEMA_FILE, schema_text
from cascade.bundle.schema import Manifest, read_json
from cascade.errors import BundleError

#: What a hostile or careless hand may put in place of a value. (A whole number written 2.0 is whole for JSON
#: Schema and refused by us.)
ODD_VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2.5,
    1e308,
    "",
    "x",
    "../../x.onnx",
    "x.onnx",
    [],
    ["x"],
    {},
    {"a": 1},
]


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    return json.loads((tiny_bundle / "bundle.json").read_text())


@pytest.fixture(scope="module")
def schema():
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def test_the_published_schema_is_that_of_the_declaration():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m cascade.bundle.json_schema"
    )


def test_the_schema_is_a_schema(schema):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", ["default", "nuts", "scene15", "vehicles"])
def test_bundles_obey(schema, name):
    jsonschema = pytest.importorskip("jsonschema")
    path = Path(__file__).resolve().parents[2] / "models" / name / "bundle.json"
    if not path.is_file():
        pytest.skip(f"models/{name} is not in this checkout")
    jsonschema.validate(read_json(path), schema)
    assert Manifest.read(path).name == name


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


def changed(manifest, chance):
    """A manifest with one to three things deleted, replaced or added."""
    made = copy.deepcopy(manifest)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice([p for p in places(made) if p] or [()])
        if not path:
            return made
        holder = made
        for key in path[:-1]:
            holder = holder[key]
        action = chance.random()
        if action < 0.3:
            del holder[path[-1]]
        elif action < 0.9:
            holder[path[-1]] = copy.deepcopy(chance.choice(ODD_VALUES))
        elif isinstance(holder, dict):
            holder["surplus"] = copy.deepcopy(chance.choice(ODD_VALUES))
    return made


def accepted(data):
    try:
        Manifest.from_dict(data)
    except BundleError:
        return False
    return True


def test_verdicts_are_those_of_jsonschema(manifest, schema):
    jsonschema = pytest.importorskip("jsonschema")
    judge = jsonschema.Draft202012Validator(schema)
    chance = random.Random(11)
    verdicts = {True: 0, False: 0}
    for _ in range(3000):
        made = changed(manifest, chance)
        expected = judge.is_valid(made)
        assert accepted(made) == expected, made
        verdicts[expected] += 1
    assert min(verdicts.values()) > 100  # both kinds were tried


def test_what_is_accepted_obeys_the_schema(schema, shipped_bundle):
    """A manifest with every part: fields that must agree with each other are beyond a schema."""
    jsonschema = pytest.importorskip("jsonschema")
    judge = jsonschema.Draft202012Validator(schema)
    manifest = read_json(shipped_bundle / "bundle.json")
    # One photo and two steps have all the places that thousands have.
    manifest["reference"] = {"confidences": [0.5], "scope_scores": [1], "labels": {"bed": 1}, "deferred": 0}
    manifest["provenance"] = manifest["measured"] = manifest["files"] = {}
    manifest["promise"]["curve"] = manifest["promise"]["curve"][:2]
    for point in manifest["budget"]["points"]:
        point["promise"]["curve"] = point["promise"]["curve"][:1]
    assert accepted(manifest)
    chance = random.Random(12)
    refused = 0
    for _ in range(1000):
        made = changed(manifest, chance)
        if accepted(made):
            assert judge.is_valid(made), made
        else:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            ("stages", "general", "file"),
            "../../evil.onnx",
            r"stages.general.file is '\.\./\.\./evil.onnx'; expected `str` matching",
        ),
        (
            ("stages", "experts", 0, "name"),
            "a/b",
            r"stages.experts\[0\].name is 'a/b'; expected",
        ),
        (
            ("stages", "general", "input", "width"),
            10**6,
            "input.width is 1000000; expected `int` <= 4096",
        ),
        (("stages", "general", "input", "mode"), 1, "stages.general.input: contains unknown field `mode`"),
        (("labels",), "all", "labels is 'all'; expected `array`"),
        (("name",), "x" * 500, r"name is 'x+\.\.\.; expected `str` of length <= 200"),
        (
            ("operating_points", "default", "leaf_threshold"),
            2,
            "operating_points.default.leaf_threshold is 2",
        ),
        (("format_version",), True, "format_version is True; expected 1"),
    ],
)
def test_the_place_and_the_rule_are_named(manifest, path, value, said):
    made = copy.deepcopy(manifest)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(BundleError, match=said):
        Manifest.from_dict(made)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", r"is not JSON \(line 1: "),
        (b'{"a": NaN}', r"is not JSON \(NaN is no number of JSON\)"),
        (b"[" * 200_000, "is not JSON"),
        (b"\xff", "cannot be read"),
    ],
)
def test_what_is_no_json(tmp_path, content, said):
    (tmp_path / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=said):
        read_json(tmp_path / "bundle.json")
