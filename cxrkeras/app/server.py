"""The web application: `create_app` builds it, `make_server` listens for it."""

import logging
import threading
from dataclasses import dataclass
from io import BytesIO

import flask
import waitress
from dash.exceptions import DependencyException
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
    """What a request may bring; over them 413 or 429."""

    file_bytes: int = 25 * 2**20
    files: int = 64
    request_bytes: int = 100 * 2**20
    in_flight: int = 32
    pixels: int = MAX_PIXELS


class _Request(flask.Request):
    """A request whose uploads stay in memory: Werkzeug's would be spilled into files once they are large."""

    def _get_file_stream(self, *arguments, **options):
        return BytesIO()


class _Flask(flask.Flask):
    request_class = _Request


class _Decoder(MultipartDecoder):
    """A decoder that takes names of files that are not UTF-8, of which Werkzeug's would refuse the whole request."""

    def _parse_headers(self, data: bytes | bytearray):
        return super()._parse_headers(bytes(data).decode("utf-8", "replace").encode())


def create_app(predictor: Predictor, limits: Limits | None = None) -> flask.Flask:
    """Build the application around a loaded predictor."""
    limits = limits or Limits()
    formparser.MultipartDecoder = _Decoder  # Werkzeug has no setting for it
    app = _Flask("cxrkeras", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=limits.request_bytes,
        MAX_FORM_PARTS=2 * limits.files + 8,
        MAX_FORM_MEMORY_SIZE=None,  # fields count as bytes of the request
        PREDICTOR=predictor,
        LIMITS=limits,
        SLOTS=threading.BoundedSemaphore(limits.in_flight),
    )
    app.json.sort_keys = False
    app.register_blueprint(api)
    dashboard = mount_dashboard(app, predictor.facts, limits.file_bytes)
    policy = (
        f"default-src 'self'; script-src 'self' {' '.join(dashboard.csp_hashes())}; img-src 'self' data: blob:; "
        "style-src 'self' 'unsafe-inline'; connect-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; form-action 'self'"
    )

    methods = {rule.rule: rule.methods for rule in app.url_map.iter_rules()}

    @app.before_request
    def refuse_unknown_addresses():
        """Dash would answer any address with its page; and no body is unpacked, of which nobody knows the size."""
        if flask.request.endpoint == "/<path:path>":
            if known := methods.get(flask.request.path):
                raise MethodNotAllowed(known)
            raise NotFound
        if flask.request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType("A request must not be compressed: send it without Content-Encoding.")

    @app.errorhandler(HTTPException)
    def explain_problem(error: HTTPException):
        if isinstance(error, MethodNotAllowed) and flask.request.path not in methods:
            error = NotFound()  # whatever the method
        detail = error.description
        if detail == RequestEntityTooLarge.description:
            detail = _name_limit(limits)
        response = make_problem(error.code, error.name, detail)
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def hide_traceback(error: Exception):
        if isinstance(error, DependencyException):
            return make_problem(404, "Not Found", "There is no such file of the page.")
        app.logger.error("%s while answering %s", type(error).__name__, flask.request.path)  # no content of the upload
        if flask.request.path.startswith("/_dash-"):
            return make_problem(400, "Bad Request", "This is not what the page's own script sends.")
        return make_problem(500, "Internal error", "The server failed to answer; nothing of the upload was kept.")

    @app.after_request
    def add_headers(response: flask.Response):
        for name, value in ({"Content-Security-Policy": policy} | HEADERS).items():
            response.headers.setdefault(name, value)
        return response

    return app


def _name_limit(limits: Limits) -> str:
    """Which limit a request is over that was refused while it was read."""
    size = flask.request.content_length
    if size is None or size > limits.request_bytes:
        return f"The request has more than the {limits.request_bytes / 2**20:g} MB that one may have."
    return f"The form has more than {2 * limits.files + 8} parts; at most {limits.files} files are answered at once."


class _Parser(HTTPRequestParser):
    """Waitress' parser, which would ask for the body of a request that it refuses by its header."""

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        if self.error is not None and self.expect_continue:
            self.expect_continue, self.completed = False, True
        return consumed


class _Channel(HTTPChannel):
    parser_class = _Parser


def make_server(app: flask.Flask, host: str, port: int) -> BaseWSGIServer:
    """A server that listens; port 0 takes a free one. Nothing is written to disk: buffers stay in memory.

    It answers only to its own names, so that no other site's page can reach it by a name of its own. Raises InputError
    if the port is taken.
    """
    app.config["TRUSTED_HOSTS"] = [host, "localhost"]
    limits = app.config["LIMITS"]
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a queue is no news
    try:
        server = waitress.create_server(
            app,
            host=host,
            port=port,
            threads=limits.in_flight + 4,  # so that the one too many hears of it at once
            ident=None,
            max_request_body_size=limits.request_bytes,
            # waitress would put larger requests and answers into temporary files
            inbuf_overflow=2 * limits.request_bytes,
            outbuf_overflow=2 * limits.request_bytes,
            clear_untrusted_proxy_headers=True,
            connection_limit=1000,
            channel_timeout=30,  # seconds without a byte
            server_name=host,  # of requests that name no host, as HTTP/1.0 may
        )
        server.channel_class = _Channel
        return server
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}): give another, as PORT={port + 1}") from None
