"""`cascade.bundle.schema`: the published schema, and that we read it as the jsonschema library does."""

from __future__ import annotations

import copy
import json
import random

import pytest

from cascade.bundle.schema import APPLIED_KEYWORDS, SCHEMA_FILE, check_manifest, read_manifest
from cascade.errors import BundleError

#: What a hostile or careless hand may put in place of a value.
ODD_VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2.0,
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


def keywords(rule):
    """Every keyword of a schema; the keys of `properties` and `$defs` are names, not keywords."""
    for key, value in rule.items():
        yield key
        if key in ("properties", "$defs"):
            for below in value.values():
                yield from keywords(below)
        elif isinstance(value, dict):
            yield from keywords(value)
        elif key == "allOf":
            for below in value:
                yield from keywords(below)


def test_every_keyword_of_the_schema_is_applied(schema):
    assert set(keywords(schema)) <= APPLIED_KEYWORDS


def test_the_schema_is_a_schema(schema):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)


def test_bundles_obey(manifest, shipped_bundle):
    check_manifest(manifest)
    check_manifest(read_manifest(shipped_bundle / "bundle.json"))


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


def test_verdicts_are_those_of_jsonschema(manifest, schema):
    jsonschema = pytest.importorskip("jsonschema")
    judge = jsonschema.Draft202012Validator(schema)
    chance = random.Random(11)
    verdicts = {True: 0, False: 0}
    for _ in range(3000):
        made = changed(manifest, chance)
        expected = judge.is_valid(made)
        try:
            check_manifest(made)
            found = True
        except BundleError:
            found = False
        assert found == expected, made
        verdicts[found] += 1
    assert min(verdicts.values()) > 100  # both kinds were tried


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            ("stages", "general", "file"),
            "../../evil.onnx",
            "stages.general.file: '../../evil.onnx' is not like",
        ),
        (("stages", "experts", 0, "name"), "a/b", r"stages.experts\[0\].name: 'a/b' is not like"),
        (("stages", "general", "input", "width"), 10**6, "stages.general.input.width: 1000000 is above 4096"),
        (("stages", "general", "input", "mode"), 1, "stages.general.input: 'mode' is not known here"),
        (("labels",), "all", "labels: 'all' is not of type array"),
        (("name",), "x" * 500, "name: is longer than 200 characters"),
        (("operating_points", "default", "leaf_threshold"), 2, "leaf_threshold: 2 is above 1"),
        (("format_version",), True, "format_version: True is not 1"),
    ],
)
def test_the_place_and_the_rule_are_named(manifest, path, value, said):
    made = copy.deepcopy(manifest)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(BundleError, match=said):
        check_manifest(made)


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
        read_manifest(tmp_path / "bundle.json")
