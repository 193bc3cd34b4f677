"""The interface for programs, of which the page is the first user."""

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager

import flask
import numpy as np
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, ServiceUnavailable, TooManyRequests

from cxrkeras import __version__
from cxrkeras.app.image_report import NOTICE, render_image_report
from cxrkeras.app.openapi import build_document, render_docs
from cxrkeras.app.problems import make_problem
from cxrkeras.data.images import decode_for, hold_memory, read_warnings, shrink_image
from cxrkeras.errors import InputError
from cxrkeras.explain.overlay import blend_map, paint_layer
from cxrkeras.explain.sheet import check_label
from cxrkeras.labels import ALL, LONGEST_LABEL
from cxrkeras.predict.answers import LARGEST_PICTURE, PNG_SIDE, FileTooLarge, describe_answer, describe_problem
from cxrkeras.predict.predictor import Predictor
from cxrkeras.text import LONGEST_NAME, clean

api = flask.Blueprint("api", __name__)


def _predictor() -> Predictor:
    return flask.current_app.config["PREDICTOR"]


@contextmanager
def _slot():
    """Hold one of the slots for requests; 429 where all are taken."""
    slots = flask.current_app.config["SLOTS"]
    if not slots.acquire(blocking=False):
        raise TooManyRequests("Too many requests at once; send this one again in a moment.", retry_after=2)
    try:
        yield
    finally:
        slots.release()


def _read_uploads() -> list[FileStorage]:
    limits = flask.current_app.config["LIMITS"]
    given = [upload for key in ("file", "files") for upload in flask.request.files.getlist(key)]
    uploads = [upload for upload in given if not _is_blank(upload)]
    if not uploads:
        raise BadRequest("Wanted multipart/form-data with one or more parts named `file`; got none.")
    if len(uploads) > limits.files:
        raise RequestEntityTooLarge(f"{len(uploads)} files; at most {limits.files} in a request.")
    return uploads


def _is_blank(upload: FileStorage) -> bool:
    """Say whether a field of a form was left without a file."""
    if upload.filename:
        return False
    first = upload.stream.read(1)
    upload.stream.seek(0)
    return not first


def _name(upload: FileStorage) -> str:
    """Clean the name of an upload, so that it can be shown and sent."""
    return clean(upload.filename or "", LONGEST_NAME)


def _read_upload() -> FileStorage:
    uploads = _read_uploads()
    if len(uploads) > 1:
        raise BadRequest(f"Wanted one file; got {len(uploads)}.")
    return uploads[0]


@contextmanager
def _decode(upload: FileStorage) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Decode the grey image for readers and for the network, uint8 (height, width), and what its header warns of.

    Raises InputError if it cannot be read.

    The image counts as memory in use until the block ends, so that only so many are decoded at once.
    """
    limits = flask.current_app.config["LIMITS"]
    content = upload.stream.read(limits.file_bytes + 1)
    if len(content) > limits.file_bytes:
        raise FileTooLarge(f"more than the {limits.file_bytes / 2**20:g} MB that a file may have")
    with hold_memory(content, limits.pixels):
        images = decode_for(_predictor().facts.preparation, content, limits.pixels)
        yield *images, read_warnings(content, limits.pixels)


def _read_side() -> int:
    """Read the longest side of the grey picture that is wanted with an answer, 0 for none."""
    given = flask.request.form.get("picture", "0")
    if not (given.isascii() and given.isdigit() and len(given) < 6 and int(given) <= LARGEST_PICTURE):
        raise BadRequest(f"`picture` is the longest side in pixels, up to {LARGEST_PICTURE}; got {given[:20]!r}.")
    return int(given)


def _describe_picture(grey: np.ndarray, side: int) -> dict[str, str]:
    """Describe the picture of an image as a field of its result, if it is wanted."""
    return {"picture": _encode_url(Image.fromarray(shrink_image(grey, side)))} if side else {}


@api.post("/api/v1/predictions")
def predict():
    """Answer each file separately: one that cannot be read has a problem in place of labels."""
    predictor, results = _predictor(), []
    with _slot():
        side = _read_side()
        for upload in _read_uploads():
            result = {"name": _name(upload)}
            try:
                with _decode(upload) as (grey, seen, warnings):
                    answer = predictor.answer(seen, warnings=warnings)
                    result |= describe_answer(answer, predictor.facts.thresholds) | _describe_picture(grey, side)
                results.append(result)
            except InputError as error:
                results.append(result | describe_problem(error))
    return flask.jsonify({"results": results, "model": predictor.facts.run, "notice": NOTICE})


@api.post("/api/v1/explanations")
def explain():
    """Explain one file: one label laid over the image as PNG, or layers of one or all labels in JSON."""
    predictor = _predictor()
    with _slot():
        upload = _read_upload()
        wants_png = flask.request.accept_mimetypes.best_match(["application/json", "image/png"]) == "image/png"
        try:
            labels, crop = predictor.facts.labels, predictor.facts.preparation.crop
            label = check_label(flask.request.form.get("label", ALL)[:LONGEST_LABEL], labels)
            if wants_png and label == ALL:
                raise InputError("a PNG shows one label: give `label`, or ask for application/json")
            side = _read_side()
            with _decode(upload) as (grey, seen, warnings):
                answer = predictor.answer(seen, with_maps=True, warnings=warnings)
                if wants_png:
                    image = shrink_image(grey, side or PNG_SIDE)
                picture = _describe_picture(grey, side)
        except InputError as error:
            return make_problem(**describe_problem(error)["problem"])
        if wants_png:
            blended = blend_map(image, answer.maps[labels.index(label)], crop)
            return flask.Response(_encode_png(Image.fromarray(blended)), content_type="image/png")
        maps = [
            {
                "label": name,
                "has_evidence": bool(heat.any()),
                "layer": _encode_url(paint_layer(heat, predictor.facts.size, (answer.height, answer.width), crop)),
            }
            for name, heat in zip(labels, answer.maps, strict=True)
            if label in (ALL, name)
        ]
        result = {"name": _name(upload), **describe_answer(answer, predictor.facts.thresholds), "maps": maps}
    return flask.jsonify(result | picture | {"model": predictor.facts.run, "notice": NOTICE})


@api.post("/api/v1/reports")
def report():
    """Render an HTML page about one file, which opens offline."""
    predictor = _predictor()
    with _slot():
        upload = _read_upload()
        try:
            with _decode(upload) as (grey, seen, warnings):
                answer = predictor.answer(seen, with_maps=True, warnings=warnings)
                drawn = shrink_image(grey, LARGEST_PICTURE)
        except InputError as error:
            return make_problem(**describe_problem(error)["problem"])
        upload.stream.seek(0)
        digest = hashlib.file_digest(upload.stream, "sha256").hexdigest()
        return flask.Response(
            render_image_report(_name(upload), digest, drawn, answer, predictor.facts),
            headers={"Content-Disposition": "attachment; filename=report.html"},
            content_type="text/html; charset=utf-8",
        )


def _encode_png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _encode_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(_encode_png(image)).decode()


@api.get("/api/v1/model")
def describe_model():
    facts = _predictor().facts
    content = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    own = {
        "labels": facts.labels.names,
        "no_finding": facts.labels.no_finding,
        "preparation": facts.preparation.model_dump(),
        "notice": NOTICE,
    }
    return flask.jsonify(content | own)


@api.get("/healthz")
def live():
    return flask.jsonify({"status": "ok"})


@api.get("/readyz")
def ready():
    """Answer an empty image: ready once the network is loaded and answers."""
    predictor = _predictor()
    try:
        predictor.answer(np.zeros((predictor.facts.size, predictor.facts.size), np.uint8))
    except Exception:
        raise ServiceUnavailable("The network does not answer.") from None
    return flask.jsonify({"status": "ready", "model": predictor.facts.run})


@api.get("/api/v1/openapi.json")
def document():
    return flask.jsonify(_build_document())


@api.get("/api/v1/docs")
def show_document():
    """Render the document as a page."""
    return render_docs(_build_document(), flask.request.host_url)


def _build_document() -> dict:
    return build_document(__version__, flask.current_app.config["LIMITS"], _predictor().facts.labels)
