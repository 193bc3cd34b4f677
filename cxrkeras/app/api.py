"""The interface for programs, of which the page is the first user."""

import base64
import io
from contextlib import contextmanager

import flask
import numpy as np
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, ServiceUnavailable, TooManyRequests

from cxrkeras import __version__, labels
from cxrkeras.app.openapi import build_document
from cxrkeras.app.predictor import Answer, Predictor
from cxrkeras.app.problems import make_problem
from cxrkeras.data.images import decode_image, resize_image
from cxrkeras.errors import InputError
from cxrkeras.explain.overlay import blend_map
from cxrkeras.explain.sheet import ALL, check_label

NOTICE = "Research software. It is no medical device and must not be used to diagnose patients."
api = flask.Blueprint("api", __name__)


def _predictor() -> Predictor:
    return flask.current_app.config["PREDICTOR"]


@contextmanager
def _slot():
    """Hold one of the requests in flight; 429 where all are taken."""
    slots = flask.current_app.config["SLOTS"]
    if not slots.acquire(blocking=False):
        raise TooManyRequests("Too many requests at once; send this one again in a moment.", retry_after=2)
    try:
        yield
    finally:
        slots.release()


def _read_uploads() -> list[FileStorage]:
    limits = flask.current_app.config["LIMITS"]
    uploads = [one for key in ("file", "files") for one in flask.request.files.getlist(key)]
    if not uploads:
        raise BadRequest("Wanted multipart/form-data with one or more parts named `file`; got none.")
    if len(uploads) > limits.files:
        raise RequestEntityTooLarge(f"{len(uploads)} files; at most {limits.files} in a request.")
    return uploads


def _decode(upload: FileStorage) -> np.ndarray:
    """A grey image, uint8 (height, width); InputError for a file that is none or too large."""
    limit = flask.current_app.config["LIMITS"].file_bytes
    content = upload.stream.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"more than the {limit // 2**20} MB that a file may have")
    return decode_image(content)


def describe_answer(answer: Answer, thresholds: dict[str, float | None]) -> dict:
    """An answer as plain JSON values: calibrated probabilities, the most probable label first."""
    ranked = sorted(labels.LABELS, key=answer.probs.get, reverse=True)
    return {
        "labels": [
            {
                "label": label,
                "probability": round(answer.probs[label], 6),
                "threshold": thresholds[label],
                "is_found": label in answer.found,
            }
            for label in ranked
        ],
        "warnings": list(answer.warnings),
        "width": answer.width,
        "height": answer.height,
    }


@api.post("/api/v1/predictions")
def predict():
    """Answer for each file by itself: a bad one gets its problem, and the others go on."""
    predictor, results = _predictor(), []
    with _slot():
        for upload in _read_uploads():
            result = {"name": upload.filename or ""}
            try:
                answer = predictor.answer(_decode(upload))
                results.append(result | describe_answer(answer, predictor.facts.thresholds))
            except InputError as error:
                results.append(
                    result | {"problem": {"title": "Not a readable image", "status": 422, "detail": str(error)}}
                )
    return flask.jsonify({"results": results, "model": predictor.facts.run, "notice": NOTICE})


@api.post("/api/v1/explanations")
def explain():
    """Heat maps of one file: a PNG overlay of one label, or JSON with those of one or all."""
    predictor = _predictor()
    with _slot():
        uploads = _read_uploads()
        if len(uploads) > 1:
            raise BadRequest(f"Wanted one file; got {len(uploads)}.")
        wants_png = flask.request.accept_mimetypes.best_match(["application/json", "image/png"]) == "image/png"
        try:
            label = check_label(flask.request.form.get("label", ALL))
            if wants_png and label == ALL:
                raise InputError("a PNG shows one label: give `label`, or ask for application/json")
            grey = _decode(uploads[0])
        except InputError as error:
            return make_problem(422, "Unprocessable content", str(error))
        answer = predictor.answer(grey, with_maps=True)
    image = resize_image(grey, predictor.facts.size)
    chosen = labels.LABELS if label == ALL else (label,)
    pictures = {name: _encode_png(blend_map(image, answer.maps[labels.LABELS.index(name)])) for name in chosen}
    if wants_png:
        return flask.Response(pictures[label], content_type="image/png")
    maps = [
        {
            "label": name,
            "has_evidence": bool(answer.maps[labels.LABELS.index(name)].any()),
            "overlay": "data:image/png;base64," + base64.b64encode(picture).decode(),
        }
        for name, picture in pictures.items()
    ]
    result = {"name": uploads[0].filename or "", **describe_answer(answer, predictor.facts.thresholds), "maps": maps}
    return flask.jsonify(result | {"model": predictor.facts.run, "notice": NOTICE})


def _encode_png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


@api.get("/api/v1/model")
def describe_model():
    facts = _predictor().facts
    content = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    return flask.jsonify(content | {"labels": labels.LABELS, "notice": NOTICE})


@api.get("/healthz")
def live():
    return flask.jsonify({"status": "ok"})


@api.get("/readyz")
def ready():
    """Ready once the network is loaded and answers."""
    predictor = _predictor()
    try:
        predictor.answer(np.zeros((predictor.facts.size, predictor.facts.size), np.uint8))
    except Exception:
        raise ServiceUnavailable("The network does not answer.") from None
    return flask.jsonify({"status": "ready", "model": predictor.facts.run})


@api.get("/api/v1/openapi.json")
def document():
    return flask.jsonify(build_document(__version__, flask.current_app.config["LIMITS"]))
