"""The interface for programs, with a real network behind it."""

import base64
import html
import io
import json
import os
import re
import shlex
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit

from cxrkeras.app.openapi import build_document, render_docs
from cxrkeras.app.server import HEADERS, Limits, create_app
from cxrkeras.data.images import decode_image
from cxrkeras.data.limits import DECODING, READING
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.labels import NIH, LabelSet
from cxrkeras.models.compiled import load_network
from cxrkeras.predict.answers import describe_answer, encode_csv, neutralise, tabulate_results
from cxrkeras.predict.batch import answer_files, list_files
from cxrkeras.predict.predictor import Predictor
from cxrkeras.records.folder import open_records
from cxrkeras.scoring.run import open_fold
from cxrkeras.scoring.run_files import MODEL, OOD_CHECK
from tests.support.dicoms import make_dicom


@pytest.fixture
def client(predictor):
    return create_app(predictor).test_client()


def encode(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def post(client, path, *files, **fields):
    data = {"file": [(io.BytesIO(content), name) for name, content in files], **fields}
    return client.post(path, data=data, content_type="multipart/form-data")


@pytest.fixture(scope="module")
def image(phantom_folder):
    return sorted((phantom_folder / "images").iterdir())[0].read_bytes()


def test_probabilities_equal_those_of_the_predictions_file(client, trained, phantom_folder):
    table = pd.read_csv(trained.folder / "predictions_test.csv", dtype={"image_id": str}).head(5)
    files = [(name, (phantom_folder / "images" / name).read_bytes()) for name in table["image_id"]]
    content = post(client, "/api/v1/predictions", *files).get_json()
    calibration, thresholds = trained.operating_points
    expected = calibration.apply(table[[f"logit_{label}" for label in NIH.names]].to_numpy(), NIH.names)
    for result, (name, _), probs in zip(content["results"], files, expected, strict=True):
        assert result["name"] == name
        got = {row["label"]: row for row in result["labels"]}
        for label, prob in zip(NIH.names, probs, strict=True):
            assert got[label]["probability"] == pytest.approx(prob, abs=1e-5)
            assert got[label]["threshold"] == thresholds.values[label]
            threshold = thresholds.values[label]
            assert got[label]["is_found"] == (threshold is not None and prob >= threshold)
        ranked = [row["probability"] for row in result["labels"]]
        assert ranked == sorted(ranked, reverse=True)
    assert not np.allclose(expected, expit(table[[f"logit_{label}" for label in NIH.names]].to_numpy()))
    assert "not a medical device" in content["notice"]


def test_a_bad_file_has_its_own_problem_and_the_others_go_on(client, image):
    answer = post(
        client, "/api/v1/predictions", ("good.png", image), ("<script>.png", b"no image"), ("../../x", image[:500])
    )
    assert answer.status_code == 200
    good, script, truncated = answer.get_json()["results"]
    assert len(good["labels"]) == 15
    assert script["problem"]["status"] == 422
    assert "not a PNG, JPEG or DICOM" in script["problem"]["detail"]
    assert script["name"] == "<script>.png"
    assert "damaged" in truncated["problem"]["detail"]
    assert answer.content_type == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"  # no browser takes a name for a page


def test_heat_maps_of_one_pass_equal_the_full_computation(predictor, trained, records):
    ids = pd.read_csv(trained.folder / "predictions_test.csv", dtype=str)["image_id"].head(3)
    explain = build_explainer(load_network(trained.folder / "model.keras", NIH), NIH)
    for grey in open_records(records).read_images(ids).values():
        logits, maps = explain(grey)
        answer = predictor.answer(grey, with_maps=True)
        for k, label in enumerate(NIH.names):
            np.testing.assert_allclose(answer.maps[k], maps[label], atol=1e-4 * max(maps[label].max(), 1e-3))
        calibration = trained.operating_points.calibration
        probs = dict(zip(NIH.names, calibration.apply(logits[None], NIH.names)[0], strict=True))
        assert answer.probs == pytest.approx(probs, abs=1e-5)


def test_explanations_as_png_and_as_json(client, image):
    answer = client.post(
        "/api/v1/explanations",
        data={"file": (io.BytesIO(image), "a.png"), "label": "mass"},
        headers={"Accept": "image/png"},
    )
    assert answer.content_type == "image/png"
    assert Image.open(io.BytesIO(answer.data)).size == (64, 64)
    content = post(client, "/api/v1/explanations", ("a.png", image)).get_json()
    assert [each["label"] for each in content["maps"]] == list(NIH.names)
    assert len(content["labels"]) == 15
    assert "picture" not in content
    (mass,) = post(client, "/api/v1/explanations", ("a.png", image), label="Mass", picture="40").get_json()["maps"]
    assert mass in content["maps"]
    layer = open_url(mass["layer"]).convert("RGBA")
    assert layer.size == (32, 32)
    opacity = np.asarray(layer)[..., 3]
    assert mass["has_evidence"] == bool(opacity.any())
    if mass["has_evidence"]:
        assert opacity.max() == 255


def test_the_heat_map_of_an_image_that_is_not_square_has_its_shape(client, image):
    wide = encode(np.asarray(Image.open(io.BytesIO(image)).convert("L").resize((1000, 500))))
    for picture, size in (({}, (512, 256)), ({"picture": "800"}, (800, 400))):
        answer = client.post(
            "/api/v1/explanations",
            data={"file": (io.BytesIO(wide), "a.png"), "label": "Mass", **picture},
            headers={"Accept": "image/png"},
        )
        assert Image.open(io.BytesIO(answer.data)).size == size


def open_url(url):
    start = "data:image/png;base64,"
    assert url.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(url[len(start) :])))


def test_the_picture_with_an_answer_is_the_decoded_image_and_no_larger(client, image):
    grey = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
    (result,) = post(client, "/api/v1/predictions", ("a.png", image), picture="2000").get_json()["results"]
    np.testing.assert_array_equal(np.asarray(open_url(result["picture"])), grey)
    (result,) = post(client, "/api/v1/predictions", ("a.png", image), picture="20").get_json()["results"]
    assert open_url(result["picture"]).size == (20, 20)


def test_a_report_of_one_image_opens_without_a_network(client, image):
    answer = post(client, "/api/v1/reports", ("<b>a.png", image))
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    text = answer.data.decode()
    assert "&lt;b&gt;a.png" in text
    assert "<b>a.png" not in text
    for words in ("synthetic phantoms", "resnet18", "not a medical device", "threshold", "Pleural Thickening", "platt"):
        assert words in text
    assert 'src="data:image/png' in text
    assert "://" not in text.replace("http://www.w3.org", "")


def test_the_interface_is_described_on_a_page(client):
    text = client.get("/api/v1/docs").data.decode()
    for words in ("POST /api/v1/explanations", "curl -F file=@a.png", "application/problem+json", "25 MB"):
        assert words in text


@pytest.mark.parametrize(
    ("send", "status", "words"),
    [
        (lambda c, i: c.post("/api/v1/predictions"), 400, "parts named `file`"),
        (lambda c, i: c.post("/api/v1/predictions", data=b"{}", content_type="application/json"), 400, "multipart"),
        (lambda c, i: c.get("/api/v1/predictions"), 405, "method"),
        (lambda c, i: c.get("/api/v2"), 404, "URL"),
        (lambda c, i: post(c, "/api/v1/explanations", ("a", i), ("b", i)), 400, "one file; got 2"),
        (lambda c, i: post(c, "/api/v1/explanations", ("a", i), label="Lump"), 422, "unknown label 'Lump'"),
        (lambda c, i: post(c, "/api/v1/explanations", ("a", b"text")), 422, "not a PNG"),
        (lambda c, i: post(c, "/api/v1/predictions", *[("a", b"x")] * 65), 413, "65 files; at most 64"),
        (lambda c, i: post(c, "/api/v1/predictions", ("a", i), picture="9999"), 400, "up to 2048; got '9999'"),
        (lambda c, i: post(c, "/api/v1/explanations", ("a", i), picture="-1"), 400, "up to 2048; got '-1'"),
        (lambda c, i: post(c, "/api/v1/reports", ("a", b"text")), 422, "not a PNG"),
        (lambda c, i: post(c, "/api/v1/reports", ("a", encode(np.zeros((9, 1000), np.uint8)))), 422, "times as long"),
        (lambda c, i: c.get("/_dash-component-suites/os/x"), 404, "no such file"),
        (lambda c, i: c.post("/_dash-update-component", json={}), 400, "own script"),
    ],
)
def test_errors_are_problem_details(client, image, send, status, words):
    answer = send(client, image)
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    content = answer.get_json()
    assert content["status"] == status
    assert words in content["detail"]
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def test_limits_are_kept(predictor, image):
    small = create_app(predictor, Limits(file_bytes=1000, request_bytes=50_000, in_flight=1)).test_client()
    content = post(small, "/api/v1/predictions", ("big.png", b"\x89PNG" + bytes(2000))).get_json()
    assert "0.000953674 MB that a file may have" in content["results"][0]["problem"]["detail"]
    assert content["results"][0]["problem"]["status"] == 413
    assert post(small, "/api/v1/reports", ("big.png", bytes(2000))).status_code == 413
    whole = post(small, "/api/v1/predictions", ("big.png", bytes(60_000)))
    assert whole.status_code == 413
    assert whole.get_json()["detail"] == "The request has more than the 0.0476837 MB allowed."
    many = create_app(predictor, Limits(files=2)).test_client()
    parts = post(many, "/api/v1/predictions", *[("a.png", b"x")] * 30)
    assert (parts.status_code, "more than 12 parts" in parts.get_json()["detail"]) == (413, True)
    three = post(many, "/api/v1/predictions", *[("a.png", b"x")] * 3)
    assert (three.status_code, three.get_json()["detail"]) == (413, "3 files; at most 2 in a request.")
    few = create_app(predictor, Limits(pixels=1000)).test_client()
    content = post(few, "/api/v1/predictions", ("large.png", image)).get_json()
    assert "64 x 64: more pixels than the limit of 1,000" in content["results"][0]["problem"]["detail"]
    slots = small.application.config["SLOTS"]
    assert slots.acquire(blocking=False)
    refused = post(small, "/api/v1/predictions", ("a.png", image))
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    slots.release()
    assert post(small, "/api/v1/predictions", ("a.png", image)).status_code == 200


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(client):
    header = encode(np.zeros((4, 4), np.uint8))
    import struct
    import zlib

    body = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    bomb = header[:8] + chunk + header[33:]
    (result,) = post(client, "/api/v1/predictions", ("bomb.png", bomb)).get_json()["results"]
    assert "more pixels than the limit" in result["problem"]["detail"]


def test_what_is_not_a_chest_radiograph_is_answered_with_a_warning(client):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    (result,) = post(client, "/api/v1/predictions", ("noise.png", encode(noise))).get_json()["results"]
    assert len(result["warnings"]) == 1
    assert len(result["labels"]) == 15


def test_warnings_of_the_header_stand_in_api_report_and_table(client, predictor, tmp_path, image):
    grey = decode_image(image)
    spoken = "its header says that it is a lateral view", "its header names a modality other than radiography"
    files = {
        "plain.dcm": (make_dicom(grey, ViewPosition="PA", Modality="DX"), ()),
        "lateral.dcm": (make_dicom(grey, ViewPosition="LL", Modality="MR"), spoken),
    }
    sent = [(name, content) for name, (content, _) in files.items()]
    results = post(client, "/api/v1/predictions", *sent).get_json()["results"]
    plain, lateral = results
    assert lateral["warnings"] == [*spoken, *plain["warnings"]]
    assert lateral["labels"] == plain["labels"]
    assert post(client, "/api/v1/explanations", sent[1]).get_json()["warnings"] == lateral["warnings"]
    report = post(client, "/api/v1/reports", sent[1]).get_data(as_text=True)
    assert all(sentence in report for sentence in spoken)
    for name, content in sent:
        (tmp_path / name).write_bytes(content)
    for path, answer in answer_files(predictor, [tmp_path / name for name in files]):
        assert answer.warnings == (*files[path.name][1], *plain["warnings"])
    table = tabulate_results(results, NIH, predictor.facts.run)
    assert table["warnings"].tolist() == ["; ".join(result["warnings"]) for result in results]


def test_images_are_counted_as_memory_until_they_are_answered(predictor, client, image, tmp_path, monkeypatch):
    free, seen = (DECODING._free, READING._free), []
    answer = Predictor.answer

    def look(self, grey, **options):
        seen.append((free[0] - DECODING._free, free[1] - READING._free, grey.size))
        return answer(self, grey, **options)

    monkeypatch.setattr(Predictor, "answer", look)
    post(client, "/api/v1/predictions", ("a.png", image), ("bad.png", b"nothing"))
    post(client, "/api/v1/explanations", ("a.png", image))
    post(client, "/api/v1/reports", ("a.png", image))
    (tmp_path / "a.png").write_bytes(image)
    list(answer_files(predictor, [tmp_path / "a.png"]))
    assert [held // size for held, _, size in seen] == [3] * 4
    assert [held for _, held, _ in seen] == [0, 0, 0, len(image)]
    assert (DECODING._free, READING._free) == free


def test_many_at_once_get_the_answers_of_one(predictor, client, phantom_folder):
    images = [path.read_bytes() for path in sorted((phantom_folder / "images").iterdir())[:24]]
    app = create_app(predictor)

    def ask(image, client=None):
        (result,) = post(client or app.test_client(), "/api/v1/predictions", ("a", image)).get_json()["results"]
        return {row["label"]: row["probability"] for row in result["labels"]}

    alone = [ask(image, client) for image in images]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, images))
    for first, second in zip(alone, together, strict=True):
        assert first == pytest.approx(second, abs=1e-5)


def test_the_network_is_described(client):
    facts = client.get("/api/v1/model").get_json()
    assert facts["is_synthetic"]
    assert facts["size"] == 32
    assert facts["labels"] == list(NIH.names)
    assert "synthetic phantoms" in facts["trained_on"]
    assert client.get("/readyz").get_json()["status"] == "ready"
    assert client.get("/healthz").status_code == 200


def test_folds_that_cannot_be_served_say_why(run_copy):
    (run_copy / OOD_CHECK).unlink()
    with pytest.raises(InputError, match=OOD_CHECK):
        Predictor(open_fold(run_copy))
    (run_copy / MODEL).unlink()
    with pytest.raises(InputError, match=f"no {MODEL}"):
        Predictor(open_fold(run_copy))


def test_what_is_not_a_file_is_named_and_a_pipe_is_not_waited_for(predictor, tmp_path, image):
    (tmp_path / "a.png").write_bytes(image)
    os.mkfifo(tmp_path / "pipe.png")
    files = list_files([tmp_path / "a.png", tmp_path / "pipe.png", tmp_path / "gone.png"])
    answers = [answer for _, answer in answer_files(predictor, files)]
    assert answers[0].probs
    assert [str(answer) for answer in answers[1:]] == ["not a file, but a pipe or a device", "no such file"]
    long, forbidden = tmp_path / f"{'n' * 300}.png", tmp_path / "forbidden"
    assert [str(answer) for _, answer in answer_files(predictor, [long])] == ["no such file"]
    with pytest.raises(InputError, match="no file or folder"):
        list_files([long])
    forbidden.mkdir(mode=0)
    if not os.access(forbidden, os.R_OK):  # root may read everything
        with pytest.raises(InputError, match="cannot read the folder"):
            list_files([tmp_path])
    with pytest.raises(InputError, match="no file or folder"):
        list_files([tmp_path / "gone.png"])


def test_cells_that_a_spreadsheet_would_compute_are_neutralised(predictor, tmp_path, image):
    for name in ("=cmd.png", "plain.png"):
        (tmp_path / name).write_bytes(image)
    files = list_files([tmp_path])
    answers = answer_files(predictor, files)
    results = [{"name": path.name, **describe_answer(found, predictor.facts.thresholds)} for path, found in answers]
    table = tabulate_results(results, NIH, predictor.facts.run)
    assert table["file"].tolist() == ["'=cmd.png", "plain.png"]
    assert [neutralise(text) for text in ("=1+1", "-a", "@x", "+1", "a=1")] == ["'=1+1", "'-a", "'@x", "'+1", "a=1"]
    assert neutralise("b\r=1\udcff\x1b[31m") == "b\ufffd=1\ufffd\ufffd[31m"
    assert neutralise(" \uff1d1") == "' \uff1d1"
    assert len(table) == 2
    assert table[[f"prob_{label}" for label in NIH.names]].notna().all(axis=None)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_unknown_addresses_are_not_found_whatever_the_method(client, method):
    assert client.open("/nowhere/at/all", method=method).status_code == 404
    assert client.open("/api/v2/predictions", method=method, data=b"x").status_code == 404


def test_known_addresses_say_which_methods_they_take(client):
    answer = client.delete("/api/v1/predictions")
    assert (answer.status_code, "POST" in answer.headers["Allow"]) == (405, True)
    assert client.post("/healthz").status_code == 405


def test_a_field_left_blank_next_to_a_file_is_ignored(client, image):
    answer = post(client, "/api/v1/predictions", ("", b""), ("a.png", image), ("", b""))
    assert [result["name"] for result in answer.get_json()["results"]] == ["a.png"]
    assert post(client, "/api/v1/reports", ("", b""), ("a.png", image)).status_code == 200
    assert post(client, "/api/v1/predictions", ("", b"")).status_code == 400
    assert "problem" in post(client, "/api/v1/predictions", ("empty.png", b"")).get_json()["results"][0]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_compressed_requests_are_refused(client, image, encoding):
    data = {"file": (io.BytesIO(image), "a.png")}
    answer = client.post("/api/v1/predictions", data=data, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.content_type) == (415, "application/problem+json")


def test_the_csv_begins_with_a_byte_order_mark_and_puts_no_finding_apart():
    rows = [{"label": label, "probability": 0.5, "threshold": 0.4, "is_found": True} for label in NIH.names[::-1]]
    table = tabulate_results([{"name": "a.png", "labels": rows, "warnings": []}], NIH, "run")
    text = encode_csv(table)
    assert text.encode()[:3] == b"\xef\xbb\xbf"
    assert "No Finding" not in table["found"][0]
    assert table["no_finding"].tolist() == ["yes"]
    assert list(table.columns)[-3:] == ["prob_No Finding", "threshold_No Finding", "model"]
    again = pd.read_csv(io.StringIO(text.removeprefix("\ufeff")))
    assert again["prob_Mass"].tolist() == [0.5]


@pytest.fixture
def document(client):
    return client.get("/api/v1/openapi.json").get_json()


KINDS = {
    dict: {"object"}, list: {"array"}, str: {"string"}, bool: {"boolean"}, int: {"integer", "number"},
    float: {"number"}, type(None): {"null"},
}  # fmt: skip
KEYWORDS = {
    "type", "const", "enum", "minimum", "maximum", "items", "properties", "required", "additionalProperties", "allOf",
    "oneOf", "description", "format",
}  # fmt: skip


def find_component(reference, document):
    """What a reference of an OpenAPI document, such as `#/components/schemas/Answer`, stands for."""
    found = document
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def expand(schema, document):
    """A schema with what it refers to, and with the fields of those that it extends."""
    if "$ref" in schema:
        return expand(find_component(schema["$ref"], document), document)
    for base in (expand(each, document) for each in schema.get("allOf", ())):
        fields = base["properties"] | schema["properties"]
        schema = base | schema | {"properties": fields, "required": [*base["required"], *schema["required"]]}
    return schema


def check(value, schema, document, where="answer"):
    """Assert that a JSON value is as an OpenAPI document says, and has no field that the document does not name."""
    schema = expand(schema, document)
    assert set(schema) <= KEYWORDS, where  # or this function would miss something
    kinds = schema.get("type", KINDS[type(value)])
    assert KINDS[type(value)] & ({kinds} if isinstance(kinds, str) else set(kinds)), where
    assert value == schema.get("const", value), where
    assert value in schema.get("enum", [value]), where
    if isinstance(value, int | float):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where
    if isinstance(value, list):
        for place, item in enumerate(value):
            check(item, schema.get("items", {}), document, f"{where}[{place}]")
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), where
        if "oneOf" in schema:
            assert sum(set(choice["required"]) <= set(value) for choice in schema["oneOf"]) == 1, where
        for name, content in value.items():
            other = schema.get("additionalProperties", None if fields else {})
            assert name in fields or other is not None, f"{where}.{name}"
            check(content, fields.get(name, other), document, f"{where}.{name}")


def check_answer(answer, document):
    """Assert that an answer of the app is one that the document describes; returns its place in the document."""
    path, method, status = answer.request.path, answer.request.method.lower(), str(answer.status_code)
    replies = document["paths"][path][method]["responses"]
    status = status if status in replies else "default"
    assert (status == "default") <= (answer.status_code >= 400)
    reply = replies[status]
    content = (find_component(reply["$ref"], document) if "$ref" in reply else reply)["content"]
    kind = answer.content_type.partition(";")[0]
    assert kind in content
    if kind.endswith("json"):
        check(answer.get_json(), content[kind]["schema"], document)
    return path, method, status


def ask_everything(app, image, monkeypatch):
    """Answers of every path, with every status that can be provoked."""
    client, slots = app.test_client(), app.config["SLOTS"]
    gets = [
        rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("api.") and "GET" in rule.methods
    ]
    posts = ["/api/v1/predictions", "/api/v1/explanations", "/api/v1/reports"]
    for path in gets:
        yield client.get(path)
        yield client.get(path, headers={"Content-Encoding": "gzip"})
    yield post(client, posts[0], ("a.png", image), ("b.png", b"text"), ("c.png", bytes(90_000)), picture="30")
    for fields in ({}, {"label": NIH.names[0], "picture": "30"}):
        yield post(client, posts[1], ("a.png", image), **fields)
    png = {"file": (io.BytesIO(image), "a.png"), "label": NIH.names[0]}
    yield client.post(posts[1], data=png, headers={"Accept": "image/png"})
    for path in posts:
        yield post(client, path, ("a.png", image))
        yield post(client, path)
        yield post(client, path, ("a.png", bytes(200_000)))
        yield post(client, path, ("a.png", b"text"))
        yield client.post(path, data=b"x", headers={"Content-Encoding": "gzip"})
        assert slots.acquire(blocking=False)
        yield post(client, path, ("a.png", image))
        slots.release()
    monkeypatch.setattr(Predictor, "answer", lambda *arguments, **options: 1 / 0)
    yield client.get("/readyz")
    for path in posts:
        yield post(client, path, ("a.png", image))


def test_every_answer_is_what_the_document_says(predictor, document, image, monkeypatch):
    app = create_app(predictor, Limits(file_bytes=80_000, request_bytes=150_000, in_flight=1))
    seen = {check_answer(answer, document) for answer in ask_everything(app, image, monkeypatch)}
    assert seen == {
        (path, method, status)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }


def test_the_document_has_every_path_and_method_and_no_other(client, document):
    rules = list(client.application.url_map.iter_rules())
    served = {(rule.rule, method) for rule in rules if rule.endpoint.startswith("api.") for method in rule.methods}
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert {(path, method) for path, method in served if method not in ("HEAD", "OPTIONS")} == described
    page = {rule.rule for rule in rules if not rule.endpoint.startswith("api.")}
    assert not [path for path in page if not path.startswith(("/_", "/assets/")) and path not in ("/", "/<path:path>")]


@pytest.mark.parametrize("labels", [NIH, LabelSet(("x y", "z")), LabelSet(tuple(f"sign {k}" for k in range(174)))])
def test_the_document_names_limits_and_labels(labels):
    document = build_document("1.2", Limits(files=7), labels)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2"
    assert (
        "At most 25 MB and 80,000,000 pixels per file, 7 files and 100 MB per request."
        in document["info"]["description"]
    )
    assert document["components"]["schemas"]["LabelName"]["enum"] == list(labels)
    assert "{" not in "".join(re.findall(r'"description": "([^"]*)"', json.dumps(document)))  # nothing left to fill in
    text = render_docs(document, "http://127.0.0.1:1/")
    assert labels.names[-1] in text
    assert f"-F label={shlex.quote(labels.names[0])} " in html.unescape(text)
