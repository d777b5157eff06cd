"""`cascade.runs.rows`: the JSON form and the columns made of it."""

from __future__ import annotations

import base64
import hashlib

import pytest

from cascade import Bundle, ErrorInfo, Opinion, Prediction, UsageError
from cascade.runs.rows import (
    EXPLAIN_FIELDS,
    FIELDS,
    bundle_hash,
    bundle_id,
    choose_fields,
    columns_of,
    flatten,
    make_row,
    path_of,
    rename_row,
)

GOOD = Prediction(
    path="a.jpg",
    label="kitchen",
    parent="indoor",
    confidence=0.75,
    reason="leaf",
    top=(("kitchen", 0.75), ("bedroom", 0.25)),
    general=Opinion("general", "bedroom", 0.5),
    experts=(Opinion("rooms", "kitchen", 0.9),),
    ms={"decode": 1.0, "total": 2.5},
)
BAD = Prediction(path="b.jpg", status="error", error=ErrorInfo("empty", "the file is empty"))


def test_a_row_is_the_json_form_and_who_made_it():
    row = make_row(GOOD, "tiny 1 sha256:00")
    assert tuple(row) == FIELDS
    assert row == GOOD.to_dict() | {"schema": 1, "bundle": "tiny 1 sha256:00"}


def test_no_key_of_the_json_form_is_forgotten():
    assert set(GOOD.to_dict()) == set(FIELDS) - {"schema", "bundle"}


def test_the_bundle_s_name_holds_the_hash_of_its_manifest(tiny_bundle):
    bundle = Bundle.load(tiny_bundle)
    digest = hashlib.sha256((tiny_bundle / "bundle.json").read_bytes()).hexdigest()
    assert bundle_hash(bundle) == digest
    assert bundle_id(bundle) == f"tiny 1.2.3 sha256:{digest[:12]}"


def test_a_name_that_is_no_text_keeps_its_bytes():
    row = make_row(Prediction(path="x\udcff\n.jpg", label="menu", confidence=1.0), "b")
    assert row["path"] == "x\\xff\n.jpg"
    assert base64.b64decode(row["path_base64"]) == b"x\xff\n.jpg"
    assert path_of(row) == "x\udcff\n.jpg"
    assert path_of(make_row(GOOD, "b")) == "a.jpg"


def test_the_same_content_under_another_name():
    row = make_row(Prediction(path="x\udcff.jpg", label="menu", confidence=1.0), "b")
    renamed = rename_row(row, "y.jpg")
    assert renamed["path"] == "y.jpg"
    assert "path_base64" not in renamed
    assert renamed["ms"] == {}
    assert renamed["label"] == "menu"


def test_columns_hold_plain_values():
    flat = flatten(make_row(GOOD, "b"), FIELDS)
    assert tuple(flat) == columns_of(FIELDS)
    assert flat["error_code"] is None
    assert (flat["general_label"], flat["general_confidence"], flat["ms_total"]) == ("bedroom", 0.5, 2.5)
    assert flatten(make_row(BAD, "b"), ["error", "label", "general", "ms"]) == {
        "error_code": "empty",
        "error_message": "the file is empty",
        "label": None,
        "general_label": None,
        "general_confidence": None,
        "ms_total": None,
    }


def test_which_fields_are_written():
    assert choose_fields(None, explain=False, columns=False) == FIELDS
    assert choose_fields(None, explain=True, columns=True) == FIELDS
    default = choose_fields(None, explain=False, columns=True)
    assert set(FIELDS) - set(default) == set(EXPLAIN_FIELDS)
    also = choose_fields(None, explain=False, columns=True, also=["label_set"])
    assert set(also) == {*default, "label_set"}
    assert choose_fields(" label, path,label", explain=False, columns=True) == ("label", "path")


@pytest.mark.parametrize(("names", "said"), [("label,colour", "'colour'"), (" , ", "names no field")])
def test_fields_that_make_no_sense(names, said):
    with pytest.raises(UsageError, match=said):
        choose_fields(names, explain=False, columns=True)
