"""The page without a browser: what it is made of, and how results are chosen and shown."""

import json

import pytest

from cxrkeras.app.dashboard import choose_results
from cxrkeras.app.server import Limits, create_app


def make_result(number, name, **probs):
    rows = [
        {"label": label, "probability": prob, "threshold": 0.5, "is_found": prob >= 0.5}
        for label, prob in sorted(probs.items(), key=lambda pair: -pair[1])
    ]
    return {"id": number, "name": name, "labels": rows, "warnings": [], "width": 9, "height": 9}


RESULTS = [
    make_result(1, "b.png", Mass=0.2, Edema=0.6),
    make_result(2, "A.png", Mass=0.7, Edema=0.55),
    make_result(3, "c.png", Mass=0.1, Edema=0.9) | {"warnings": ["it is blank"]},
    {"id": 4, "name": "d.png", "problem": {"detail": "empty"}},
    {"id": 5, "name": "e.png", "state": "waiting"},
]


@pytest.mark.parametrize(
    ("text", "show", "sort", "expected"),
    [
        ("", "all", "order", [1, 2, 3, 4, 5]),
        ("", "all", "name", [2, 1, 3, 4, 5]),
        ("", "all", "found", [2, 1, 3, 4, 5]),
        ("", "all", "highest", [3, 2, 1, 4, 5]),
        ("a.P", "all", "order", [2]),
        ("", "found", "order", [1, 2, 3]),
        ("", "strange", "order", [3]),
        ("", "problem", "order", [4]),
        ("", "Mass", "order", [2]),
        ("[", "all", "order", []),
    ],
)
def test_results_are_sorted_and_filtered(text, show, sort, expected):
    view = {"sort": sort, "insisted": [3]}
    assert [one["id"] for one in choose_results(RESULTS, text, show, view)] == expected


def test_what_is_held_back_is_not_found_by_its_labels():
    view = {"sort": "highest", "insisted": []}
    assert [one["id"] for one in choose_results(RESULTS, "", "all", view)] == [2, 1, 3, 4, 5]
    assert [one["id"] for one in choose_results(RESULTS, "", "Edema", view)] == [2, 1]


def test_the_page_says_what_it_is_and_reaches_no_other_host(predictor, trained):
    client = create_app(predictor, Limits(file_bytes=5000)).test_client()
    page = client.get("/")
    assert page.status_code == 200
    assert "://" not in page.text
    assert "'unsafe-inline'" not in page.headers["Content-Security-Policy"].partition("style-src")[0]
    layout = client.get("/_dash-layout").text
    for words in ("no medical device", "synthetic phantoms", "calibrated", "threshold", trained.folder.parent.name):
        assert words in layout
    assert json.loads(client.get("/_dash-dependencies").data)
    for file in ("page.js", "style.css"):
        with client.get(f"/assets/{file}") as reply:
            assert reply.status_code == 200
    broken = client.post("/_dash-update-component", json={"output": "rows.children", "inputs": []})
    assert b"Traceback" not in broken.data
    assert client.post("/_dash-update-component", data=b"\x00", content_type="application/json").status_code < 600


def test_callbacks_hold_back_the_result_of_what_is_no_chest(predictor):
    client = create_app(predictor).test_client()
    view = {"open": 3, "beside": None, "insisted": [], "sort": "order"}
    rows = call(client, "rows.children", results=RESULTS, view=view, search="", show="all")["rows"]["children"]
    text = json.dumps(rows)
    assert "Not shown: it is blank." in text
    assert "Edema 90.0 %" not in text
    assert "Edema 60.0 %" in text
    insisted = call(client, "rows.children", results=RESULTS, view=view | {"insisted": [3]}, search="", show="all")
    assert "Edema 90.0 %" in json.dumps(insisted)


def call(client, output, **values):
    """One callback of the page, as the browser calls it."""
    (entry,) = [one for one in json.loads(client.get("/_dash-dependencies").data) if output in one["output"]]
    outputs = [
        dict(zip(("id", "property"), one.rsplit(".", 1), strict=True))
        for one in entry["output"].strip(".").split("...")
    ]
    body = {
        "output": entry["output"],
        "outputs": outputs,
        "inputs": [one | {"value": values[one["id"]]} for one in entry["inputs"]],
        "changedPropIds": [],
        "state": [one | {"value": values[one["id"]]} for one in entry["state"]],
    }
    return client.post("/_dash-update-component", json=body).get_json()["response"]
