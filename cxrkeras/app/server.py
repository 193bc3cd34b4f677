"""The web application: `create_app` builds it, `make_server` listens for it."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import flask
import waitress
from dash.exceptions import DependencyException
from flask.json.provider import DefaultJSONProvider
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from werkzeug import formparser
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.sansio.multipart import MultipartDecoder

from cxrkeras.app.api import api
from cxrkeras.app.dashboard import mount_dashboard
from cxrkeras.app.problems import make_problem
from cxrkeras.data.limits import MAX_PIXELS
from cxrkeras.errors import InputError
from cxrkeras.predict.predictor import Predictor

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """How much a request may hold; above that 413 or 429."""

    file_bytes: int = 25 * 2**20
    files: int = 64
    request_bytes: int = 100 * 2**20
    in_flight: int = 32
    pixels: int = MAX_PIXELS


class _Request(flask.Request):
    """A request whose uploads stay in memory: Werkzeug moves large ones into temporary files."""

    def _get_file_stream(self, *arguments, **options):
        return BytesIO()


class _Json(DefaultJSONProvider):
    sort_keys = False


class _Flask(flask.Flask):
    request_class = _Request
    json_provider_class = _Json


class _Decoder(MultipartDecoder):
    """A decoder that takes file names that are not UTF-8, for which Werkzeug refuses the whole request."""

    def _parse_headers(self, data: bytes | bytearray):
        return super()._parse_headers(bytes(data).decode("utf-8", "replace").encode())


def create_app(predictor: Predictor, limits: Limits | None = None) -> flask.Flask:
    """Build the application around a loaded predictor."""
    limits = limits or Limits()
    formparser.MultipartDecoder = _Decoder  # type: ignore[misc] # Werkzeug has no setting for it
    app = _Flask("cxrkeras", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=limits.request_bytes,
        MAX_FORM_PARTS=2 * limits.files + 8,
        MAX_FORM_MEMORY_SIZE=None,  # fields count as bytes of the request
        PREDICTOR=predictor,
        LIMITS=limits,
        SLOTS=threading.BoundedSemaphore(limits.in_flight),
    )
    app.register_blueprint(api)
    dashboard = mount_dashboard(app, predictor.facts, limits.file_bytes)
    _refuse_unknown(app)
    _answer_errors(app)
    _send_headers(app, dashboard.csp_hashes())
    return app


def _list_methods(app: flask.Flask) -> dict[str, set[str]]:
    """List the addresses without parameters, and the methods of each."""
    return {rule.rule: rule.methods or set() for rule in app.url_map.iter_rules()}


def _refuse_unknown(app: flask.Flask) -> None:
    """Refuse what Dash would answer with its page, and compressed bodies, whose size is not known."""
    methods = _list_methods(app)

    @app.before_request
    def refuse():
        if flask.request.endpoint == "/<path:path>":  # Dash's, for any address
            if known := methods.get(flask.request.path):
                raise MethodNotAllowed(known)
            raise NotFound
        if flask.request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType("A request must not be compressed: send it without Content-Encoding.")


def _answer_errors(app: flask.Flask) -> None:
    """Answer every error with problem details, which hold nothing of the upload."""
    methods, limits = _list_methods(app), app.config["LIMITS"]

    @app.errorhandler(HTTPException)
    def explain_problem(error: HTTPException):
        if isinstance(error, MethodNotAllowed) and flask.request.path not in methods:
            error = NotFound()  # for any method
        detail = error.description
        if detail == RequestEntityTooLarge.description:
            detail = _name_limit(limits)
        response = make_problem(error.code or 500, error.name, detail or "")
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def hide_traceback(error: Exception):
        if isinstance(error, DependencyException):
            return make_problem(404, "Not Found", "The page has no such file.")
        app.logger.error("%s while answering %s", type(error).__name__, flask.request.path)  # no content of the upload
        if flask.request.path.startswith("/_dash-"):
            return make_problem(400, "Bad Request", "This is not what the page's own script sends.")
        return make_problem(500, "Internal error", "The server failed to answer; nothing of the upload was kept.")


def _send_headers(app: flask.Flask, script_hashes: Sequence[str]) -> None:
    """Send the headers of security with every answer; only the page's own scripts may run."""
    policy = (
        f"default-src 'self'; script-src 'self' {' '.join(script_hashes)}; img-src 'self' data: blob:; "
        "style-src 'self' 'unsafe-inline'; connect-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; form-action 'self'"
    )

    @app.after_request
    def add_headers(response: flask.Response):
        for name, value in ({"Content-Security-Policy": policy} | HEADERS).items():
            response.headers.setdefault(name, value)
        return response


def _name_limit(limits: Limits) -> str:
    """Name the limit for which a request was refused while it was read."""
    size = flask.request.content_length
    if size is None or size > limits.request_bytes:
        return f"The request has more than the {limits.request_bytes / 2**20:g} MB allowed."
    return f"The form has more than {2 * limits.files + 8} parts; at most {limits.files} files are answered at once."


class _Parser(HTTPRequestParser):
    """A parser that does not ask for the body of a request that is refused by its header, as Waitress' does."""

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        if self.error is not None and self.expect_continue:  # type: ignore[has-type]
            self.expect_continue, self.completed = False, True
        return consumed


class _Channel(HTTPChannel):
    parser_class = _Parser


def make_server(app: flask.Flask, host: str, port: int) -> BaseWSGIServer:
    """Make a server that listens; port 0 takes a free port. Nothing is written to disk: buffers stay in memory.

    It answers only to its own names, so that a page of another site cannot reach it by a name of its own.
    Raises InputError if the port is taken.
    """
    app.config["TRUSTED_HOSTS"] = [host, "localhost"]
    limits = app.config["LIMITS"]
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every queued request
    try:
        server = waitress.create_server(
            app,
            host=host,
            port=port,
            threads=limits.in_flight + 4,  # spare ones, so that a request above the limit gets its 429 at once
            ident=None,
            max_request_body_size=limits.request_bytes,
            # Waitress puts larger requests and answers into temporary files
            inbuf_overflow=2 * limits.request_bytes,
            outbuf_overflow=2 * limits.request_bytes,
            clear_untrusted_proxy_headers=True,
            connection_limit=1000,
            channel_timeout=30,  # seconds without a byte
            server_name=host,  # of requests without a Host header, which HTTP/1.0 allows
        )
        server.channel_class = _Channel
        return server
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}): try {port + 1}") from None
