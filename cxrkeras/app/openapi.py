"""The OpenAPI document of the interface, and the page made of it."""

import json
import shlex
from pathlib import Path

from cxrkeras.labels import LabelSet
from cxrkeras.predict.answers import LARGEST_PICTURE, PNG_SIDE
from cxrkeras.reports.page import Page, Section, Table, render_page

DOCUMENT = Path(__file__).with_name("openapi.json")
_EXAMPLES = {
    "/api/v1/predictions": "curl -F file=@a.png -F file=@b.dcm {host}api/v1/predictions",
    "/api/v1/explanations": "curl -F file=@a.png -F label={label} -H 'Accept: image/png' -o map.png "
    "{host}api/v1/explanations",
    "/api/v1/reports": "curl -F file=@a.png -o report.html {host}api/v1/reports",
}


def build_document(version: str, limits, labels: LabelSet) -> dict:
    """Build the interface as OpenAPI 3.1; `limits` are those that the server was started with."""
    document = json.loads(DOCUMENT.read_text("utf-8"))
    info, schemas = document["info"], document["components"]["schemas"]
    info["version"] = version
    info["description"] = info["description"].format(
        megabytes_per_file=limits.file_bytes / 2**20,
        pixels_per_file=limits.pixels,
        files_per_request=limits.files,
        megabytes_per_request=limits.request_bytes / 2**20,
    )
    side = schemas["PictureSide"]
    side["maximum"], side["description"] = LARGEST_PICTURE, side["description"].format(png_side=PNG_SIDE)
    schemas["LabelName"]["enum"] = list(labels)
    return document


def render_docs(document: dict, host: str) -> str:
    """Render the document as a page for people; `host` is the server's own address, for the examples."""
    schemas = document["components"]["schemas"]
    label = shlex.quote(schemas["LabelName"]["enum"][0])
    sections = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            texts = [f"{operation['summary']}."]
            if path in _EXAMPLES:
                texts.append(f"Example: {_EXAMPLES[path].format(host=host, label=label)}")
            tables = _tabulate_operation(operation, document["components"]["responses"])
            sections.append(Section(f"{method.upper()} {path}", texts, tables=tables))
    for name, schema in schemas.items():
        if "properties" in schema:
            texts = [f"All fields of {_name(base)}, and:" for base in schema.get("allOf", [])]
            sections.append(Section(f"{name}, in JSON", texts, tables=[_tabulate_fields(schema, "field")]))
        else:
            sections.append(Section(name, [f"{_describe_schema(schema)}."]))
    lede = [document["info"]["description"], "For programs: /api/v1/openapi.json, OpenAPI 3.1."]
    html, _ = render_page(Page("Interface for programs", lede, [], sections))
    return html


def _tabulate_operation(operation: dict, responses: dict) -> list[Table]:
    """List the fields of its form, if it takes one, and its replies by status."""
    tables = []
    if "requestBody" in operation:
        (form,) = operation["requestBody"]["content"].values()
        tables.append(_tabulate_fields(form["schema"], "part of the form"))
    rows = []
    for status, reply in operation["responses"].items():
        reply = responses[_name(reply)] if "$ref" in reply else reply
        rows.append((status, f"{reply['description']} ({', '.join(reply['content'])})"))
    return [*tables, Table(["status", "is"], rows)]


def _tabulate_fields(schema: dict, title: str) -> Table:
    rows = [(field, _describe_schema(content)) for field, content in schema["properties"].items()]
    return Table([title, "is"], rows)


def _name(reference: dict) -> str:
    return reference["$ref"].rpartition("/")[2]


def _describe_schema(schema: dict) -> str:
    """Put a schema into words."""
    if "$ref" in schema:
        return _name(schema)
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        words = " or ".join(map(_describe_schema, schema["anyOf"]))
    elif schema["type"] == "array":
        words = f"list of {_describe_schema(schema['items'])}"
    else:
        words = " or ".join(schema["type"]) if isinstance(schema["type"], list) else schema["type"]
    if "enum" in schema:
        words += f": {', '.join(schema['enum'])}"
    if "default" in schema:
        words += f", by default {schema['default']}"
    return words + (f"; {schema['description']}" if "description" in schema else "")
