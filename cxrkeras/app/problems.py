"""Errors as programs read them."""

import flask


def make_problem(status: int, title: str, detail: str) -> flask.Response:
    """An error as JSON problem details (RFC 9457)."""
    response = flask.jsonify({"type": "about:blank", "title": title, "status": status, "detail": detail})
    response.status_code, response.content_type = status, "application/problem+json"
    return response
