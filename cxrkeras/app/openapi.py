"""The OpenAPI document of the interface, and the page made of it."""

from cxrkeras import labels
from cxrkeras.predict.answers import LARGEST_PICTURE, PNG_SIDE
from cxrkeras.reports.page import Page, Section, Table, render_page

_PICTURE = {
    "type": "integer",
    "minimum": 0,
    "maximum": LARGEST_PICTURE,
    "default": 0,
    "description": "longest side in pixels of a grey PNG of the image beside its result, as browsers show no DICOM; "
    f"where a PNG is asked for, its own longest side, by default {PNG_SIDE}",
}
_EXAMPLES = {
    "/api/v1/predictions": "curl -F file=@a.png -F file=@b.dcm {host}api/v1/predictions",
    "/api/v1/explanations": "curl -F file=@a.png -F label=Mass -H 'Accept: image/png' -o mass.png "
    "{host}api/v1/explanations",
    "/api/v1/reports": "curl -F file=@a.png -o report.html {host}api/v1/reports",
}


def build_document(version: str, limits) -> dict:
    """The interface as OpenAPI 3.1; `limits` are those the server was started with."""
    problem = {"description": "Problem details", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    problems = {str(status): problem for status in (400, 413, 429)}
    label = {"type": "string", "enum": list(labels.LABELS)}
    upload = {"type": "string", "format": "binary", "description": "PNG, JPEG or DICOM, known by its content"}
    picture = {"type": "string", "description": "data URL of a PNG"}
    answer = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "labels": {"type": "array", "items": _ref("Label"), "description": "the most probable first"},
            "warnings": {"type": "array", "items": {"type": "string"}, "description": "reasons against the image"},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "picture": picture | {"description": "the grey image as data URL of a PNG, if it was asked for"},
            "problem": _ref("Problem"),
        },
        "required": ["name"],
    }
    explanation = {
        "allOf": [_ref("Answer")],
        "properties": {"maps": {"type": "array", "items": _ref("Map")}},
        "required": ["maps"],
    }
    choice = {"type": "string", "enum": [*labels.LABELS, "all"], "default": "all"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cxrkeras",
            "version": version,
            "description": "Probabilities and heat maps for chest radiographs. Research software, no medical device. "
            f"At most {limits.file_bytes / 2**20:g} MB and {limits.pixels:,} pixels a file, {limits.files} files and "
            f"{limits.request_bytes / 2**20:g} MB a request. Nothing that is uploaded is kept.",
        },
        "paths": {
            "/api/v1/predictions": {
                "post": {
                    "summary": "Probabilities for each of many files",
                    "requestBody": _form({"file": {"type": "array", "items": upload}, "picture": _PICTURE}),
                    "responses": {"200": _json("An answer or a problem for each file", _ref("Answers"))} | problems,
                }
            },
            "/api/v1/explanations": {
                "post": {
                    "summary": "Heat maps of one file",
                    "requestBody": _form({"file": upload, "label": choice, "picture": _PICTURE}),
                    "responses": {
                        "200": {
                            "description": "JSON with a layer a label, or one label laid over the image as PNG",
                            "content": {
                                "application/json": {"schema": explanation},
                                "image/png": {"schema": {"type": "string", "format": "binary"}},
                            },
                        },
                        "422": problem,
                    }
                    | problems,
                }
            },
            "/api/v1/reports": {
                "post": {
                    "summary": "A page about one file, to keep",
                    "requestBody": _form({"file": upload}),
                    "responses": {
                        "200": {
                            "description": "One HTML file that opens without a network",
                            "content": {"text/html": {"schema": {"type": "string"}}},
                        },
                        "422": problem,
                    }
                    | problems,
                }
            },
            "/api/v1/model": {"get": {"summary": "The network that answers", "responses": {"200": _json("Facts", {})}}},
            "/healthz": {"get": {"summary": "Whether the process lives", "responses": {"200": _json("ok", {})}}},
            "/readyz": {
                "get": {
                    "summary": "Whether the network answers",
                    "responses": {"200": _json("ready", {}), "503": problem},
                }
            },
        },
        "components": {
            "schemas": {
                "Label": {
                    "type": "object",
                    "properties": {
                        "label": label,
                        "probability": {"type": "number", "minimum": 0, "maximum": 1, "description": "calibrated"},
                        "threshold": {"type": ["number", "null"], "description": "chosen on validation"},
                        "is_found": {"type": "boolean"},
                    },
                    "required": ["label", "probability", "threshold", "is_found"],
                },
                "Map": {
                    "type": "object",
                    "properties": {
                        "label": label,
                        "has_evidence": {"type": "boolean", "description": "false where nothing speaks for the label"},
                        "layer": picture
                        | {
                            "description": "data URL of a PNG to stretch over the image, the more opaque the more "
                            "evidence"
                        },
                    },
                    "required": ["label", "has_evidence", "layer"],
                },
                "Answer": answer,
                "Answers": {
                    "type": "object",
                    "properties": {
                        "results": {"type": "array", "items": _ref("Answer")},
                        "model": {"type": "string"},
                        "notice": {"type": "string"},
                    },
                    "required": ["results", "model", "notice"],
                },
                "Problem": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                    "required": ["title", "status", "detail"],
                },
            }
        },
    }


def _ref(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: dict) -> dict:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _form(properties: dict) -> dict:
    schema = {"type": "object", "properties": properties, "required": ["file"]}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def write_docs(document: dict, host: str) -> str:
    """The document as an HTML page for people; `host` is the server's own address, for the examples."""
    sections = []
    for path, methods in document["paths"].items():
        for method, entry in methods.items():
            tables = []
            if "requestBody" in entry:
                (form,) = entry["requestBody"]["content"].values()
                rows = [(name, _spell(field)) for name, field in form["schema"]["properties"].items()]
                tables.append(Table(["part of the form", "is"], rows))
            rows = [(status, f"{reply['description']} ({', '.join(reply['content'])})")
                    for status, reply in entry["responses"].items()]  # fmt: skip
            tables.append(Table(["status", "is"], rows))
            texts = [f"{entry['summary']}."]
            if path in _EXAMPLES:
                texts.append(f"Example: {_EXAMPLES[path].format(host=host)}")
            sections.append(Section(f"{method.upper()} {path}", texts, tables=tables))
    for name, schema in document["components"]["schemas"].items():
        rows = [(field, _spell(content)) for field, content in schema["properties"].items()]
        sections.append(Section(f"{name}, in JSON", tables=[Table(["field", "is"], rows)]))
    lede = [document["info"]["description"], "For programs: /api/v1/openapi.json, OpenAPI 3.1."]
    html, _ = render_page(Page("Interface for programs", lede, [], sections))
    return html


def _spell(field: dict) -> str:
    """A schema in words."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    kind = field["type"]
    words = " or ".join(kind) if isinstance(kind, list) else kind
    if kind == "array":
        words = f"list of {_spell(field['items'])}"
    if "enum" in field:
        words += f": {', '.join(field['enum'])}"
    if "default" in field:
        words += f", by default {field['default']}"
    return words + (f"; {field['description']}" if "description" in field else "")
