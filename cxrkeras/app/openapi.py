"""The OpenAPI document of the interface."""

from cxrkeras import labels


def build_document(version: str, limits) -> dict:
    """The interface as OpenAPI 3.1; `limits` are those the server was started with."""
    problem = {"description": "Problem details", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    problems = {str(status): problem for status in (400, 413, 429)}
    label = {"type": "string", "enum": list(labels.LABELS)}
    upload = {"type": "string", "format": "binary", "description": "PNG, JPEG or DICOM, known by its content"}
    answer = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "labels": {"type": "array", "items": _ref("Label"), "description": "the most probable first"},
            "warnings": {"type": "array", "items": {"type": "string"}, "description": "reasons against the image"},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "problem": _ref("Problem"),
        },
        "required": ["name"],
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cxrkeras",
            "version": version,
            "description": "Probabilities and heat maps for chest radiographs. Research software, no medical device. "
            f"At most {limits.file_bytes // 2**20} MB a file, {limits.files} files and "
            f"{limits.request_bytes // 2**20} MB a request. Nothing that is uploaded is kept.",
        },
        "paths": {
            "/api/v1/predictions": {
                "post": {
                    "summary": "Probabilities for each of many files",
                    "requestBody": _form({"file": {"type": "array", "items": upload}}, ["file"]),
                    "responses": {"200": _json("An answer or a problem for each file", _ref("Answers"))} | problems,
                }
            },
            "/api/v1/explanations": {
                "post": {
                    "summary": "Heat maps of one file",
                    "requestBody": _form(
                        {
                            "file": upload,
                            "label": {"type": "string", "enum": [*labels.LABELS, "all"], "default": "all"},
                        },
                        ["file"],
                    ),
                    "responses": {
                        "200": {
                            "description": "JSON with an overlay a label, or the overlay of one label",
                            "content": {
                                "application/json": {"schema": _ref("Answer")},
                                "image/png": {"schema": {"type": "string", "format": "binary"}},
                            },
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


def _form(properties: dict, required: list[str]) -> dict:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
