"""Errors for programs."""

import flask


def make_problem(status: int, title: str, detail: str) -> flask.Response:
    """Make an error into JSON problem details (RFC 9457)."""
    response = flask.jsonify({"type": "about:blank", "title": title, "status": status, "detail": detail})
    response.status_code, response.content_type = status, "application/problem+json"
    return response
