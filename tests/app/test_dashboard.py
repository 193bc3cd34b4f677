"""The page without a browser: what it is made of, and what the server does for it."""

import dataclasses
import io
import json

import pandas as pd
import pytest

from cxrkeras.app.dashboard import ASSETS
from cxrkeras.app.layout import build_layout
from cxrkeras.app.server import Limits, create_app
from cxrkeras.labels import NIH, LabelSet, display_name

ANSWERED = [
    {"name": "a.png", "labels": [{"label": "Mass", "probability": 0.7, "threshold": 0.5, "is_found": True}],
     "warnings": ["it is blank"]},
    {"name": "=b.png", "problem": {"detail": "empty"}},
]  # fmt: skip


def test_the_page_says_what_it_is_and_reaches_no_other_host(predictor, trained):
    client = create_app(predictor, Limits(file_bytes=5000)).test_client()
    page = client.get("/")
    assert page.status_code == 200
    assert "://" not in page.text
    assert "'unsafe-inline'" not in page.headers["Content-Security-Policy"].partition("style-src")[0]
    layout = client.get("/_dash-layout").text
    for words in ("not a medical device", "synthetic phantoms", "calibrated", "threshold", trained.folder.parent.name):
        assert words in layout
    assert json.loads(json.loads(layout)["props"]["data-facts"])["file_bytes"] == 5000
    for path in ASSETS.iterdir():
        assert f"/assets/{path.name}" in page.text
        with client.get(f"/assets/{path.name}") as reply:
            assert reply.status_code == 200


def test_what_the_page_does_not_send_is_refused_without_a_traceback(predictor):
    client = create_app(predictor).test_client()
    for sent in ({"json": {"output": "csv-file.data", "inputs": []}}, {"data": b"\x00"}, {"json": ["x"]}):
        answer = client.post("/_dash-update-component", **({"content_type": "application/json"} | sent))
        assert 400 <= answer.status_code < 500
        assert b"Traceback" not in answer.data


def test_answers_become_a_table(predictor):
    client = create_app(predictor).test_client()
    file = call(client, "csv-file.data", answered=ANSWERED).get_json()["response"]["csv-file"]["data"]
    assert file["filename"] == "cxrkeras.csv"
    table = pd.read_csv(io.StringIO(file["content"].removeprefix("\ufeff")))
    assert table["file"].tolist() == ["a.png", "'=b.png"]
    assert table["prob_Mass"].tolist()[0] == 0.7
    assert table["warnings"].tolist()[0] == "it is blank"
    assert table["problem"].tolist()[1] == "empty"
    assert call(client, "csv-file.data", answered=[]).status_code == 204


def test_the_server_renders_nothing_but_the_table(predictor):
    entries = json.loads(create_app(predictor).test_client().get("/_dash-dependencies").data)
    assert [entry["output"] for entry in entries if not entry["clientside_function"]] == ["csv-file.data"]


@pytest.mark.parametrize("count", [1, 2, 40, 174])
def test_any_labels_can_be_shown(predictor, count):
    names = tuple(f"sign_{k}" for k in range(count))
    labels = LabelSet(names, names[1] if count == 2 else None)
    layout = build_layout(dataclasses.replace(predictor.facts, labels=labels), 1000)
    options = {option["value"]: option["label"] for option in layout["show"].options}
    for name in names:
        assert options[f"above:{name}"] == f"{display_name(name)} above its threshold"
    assert json.loads(getattr(layout, "data-facts"))["no_finding"] == labels.no_finding


def test_no_label_is_named_in_the_code():
    for path in (path for path in ASSETS.parent.rglob("*") if path.suffix in (".py", ".js", ".json", ".css")):
        text = path.read_text()
        assert not [label for label in NIH if label in text or display_name(label) in text], path


def call(client, output, **values):
    """Call one callback of the page as the browser does."""
    entries = json.loads(client.get("/_dash-dependencies").data)
    (entry,) = [entry for entry in entries if entry["output"] == output]
    name, _, prop = output.rpartition(".")
    body = {
        "output": output,
        "outputs": {"id": name, "property": prop},
        "inputs": [given | {"value": values[given["id"]]} for given in entry["inputs"]],
        "changedPropIds": [f"{given['id']}.{given['property']}" for given in entry["inputs"]],
    }
    return client.post("/_dash-update-component", json=body)
