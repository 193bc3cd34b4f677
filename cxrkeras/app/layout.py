"""What the page is made of before there are results."""

import json
from typing import Any

from dash import dcc, html

from cxrkeras import __version__
from cxrkeras.app.image_report import HEAT_MAP, NOTICE, SCALE, describe_facts
from cxrkeras.explain.sheet import NUM_TOP
from cxrkeras.labels import display_name
from cxrkeras.predict.answers import LARGEST_PICTURE
from cxrkeras.predict.limits import explain_decisions, list_limits
from cxrkeras.predict.predictor import Facts


def _attributes(**values: str) -> dict[str, Any]:
    """Attributes whose names have hyphens: `aria_label` is `aria-label`."""
    return {name.replace("_", "-"): value for name, value in values.items()}


def build_layout(facts: Facts, largest_file: int) -> html.Div:
    """Build the whole page, with the notices that are always there; `largest_file` in bytes."""
    limits = list_limits(facts)
    notices = [*limits, NOTICE]
    shared = {
        "file_bytes": largest_file,
        "picture_side": LARGEST_PICTURE,
        "num_top": NUM_TOP,
        "run": facts.run,
        "no_finding": facts.labels.no_finding,
        "unseen": facts.unseen,
        "notices": notices,
    }
    return html.Div(
        [
            dcc.Store(id="answered"),
            dcc.Download(id="csv-file"),
            _build_header(),
            html.P(NOTICE, className="notice", role="note"),
            *[html.P(limit, className="banner") for limit in limits],
            html.P(
                "Cannot reach the server. Keep this page open; uploads resume automatically.",
                id="offline",
                className="warning",
                role="alert",
                hidden=True,
            ),
            html.Main([_build_upload(), _build_overview(facts), _build_detail(facts), _build_network(facts)]),
            _build_foot(facts.run),
        ],
        id="page",
        className="page",
        **_attributes(data_facts=json.dumps(shared)),
    )


def _build_header() -> html.Header:
    return html.Header(
        [
            html.H1("cxrkeras"),
            html.P("What a network finds in chest radiographs, and where it looked.", className="quiet"),
            html.Button(
                [html.Span("Light theme", className="if-dark"), html.Span("Dark theme", className="if-light")],
                id="theme",
                className="plain",
            ),
        ]
    )


def _build_upload() -> html.Section:
    return html.Section(
        [
            html.Div(id="drop", className="drop"),
            html.P("PNG, JPEG and DICOM. Files go to this server's memory only; nothing is kept.", className="quiet"),
            html.Progress(id="progress", className="progress", **_attributes(aria_label="files answered")),
            html.P(id="state", role="status", className="state"),
        ],
        className="upload",
        **_attributes(aria_label="upload"),
    )


def _build_overview(facts: Facts) -> html.Section:
    columns = (("name", "Name"), ("found", "Above threshold"), ("highest", "Most probable findings"))
    heads = [
        html.Th(html.Button(text, **_attributes(data_sort=key)), scope="col", id=f"head-{key}", className=key)
        for key, text in columns
    ]
    image = html.Th("Image", className="thumbnail", scope="col")
    search = dcc.Input(id="search", type="search")
    return html.Section(
        [
            html.Div(
                [
                    html.Div([html.Label("Find a name", htmlFor="search"), search], className="search"),
                    html.Div([html.Label("Show", htmlFor="show"), _build_kinds(facts)], className="show"),
                    html.P(id="count", className="quiet", role="status"),
                    html.Button("Save all as CSV", id="csv"),
                    html.Button("Remove all", id="clear", className="plain"),
                ],
                className="bar",
            ),
            html.Table([html.Thead(html.Tr([image, *heads])), html.Tbody(id="rows")], className="results"),
        ],
        id="overview",
        hidden=True,
        **_attributes(aria_label="results"),
    )


def _build_kinds(facts: Facts) -> dcc.Dropdown:
    """Build the choice of what the list shows; its values are those of `chooseResults` in answers.js."""
    kinds = {
        "all": "all images",
        "found": "with a finding above its threshold",
        "warned": "unlike the training images",
        "problem": "not readable",
        **{f"above:{label}": f"{display_name(label)} above its threshold" for label in facts.labels},
    }
    options = [{"label": text, "value": value} for value, text in kinds.items()]
    return dcc.Dropdown(id="show", options=options, value="all", clearable=False, maxHeight=480)


def _build_detail(facts: Facts) -> html.Section:
    """Build the view of one image, or of two next to each other."""
    return html.Section(
        [
            _build_toolbar(),
            html.Div(id="about", className="about"),
            html.Div(id="warnings", role="alert"),
            html.Div([_build_look(), _build_answer(facts)], className="columns"),
        ],
        id="detail",
        hidden=True,
        **_attributes(aria_label="one image"),
    )


def _build_toolbar() -> html.Div:
    compare = dcc.Dropdown(id="compare", placeholder="a second image")
    return html.Div(
        [
            html.Button("Back to the list", id="back"),
            html.Button("Previous", **_attributes(data_step="-1")),
            html.Button("Next", **_attributes(data_step="1")),
            html.Span(id="position", className="quiet"),
            html.Button("Save the picture", id="save-picture"),
            html.Button("Save a report", id="save-report"),
            html.Div([html.Label("Compare with", htmlFor="compare"), compare], className="compare"),
        ],
        className="bar",
    )


def _build_look() -> html.Div:
    """Build the images, the controls of how they are shown, and the tiles of the most probable findings."""
    sliders = [
        _build_slider("opacity", "Opacity of the heat map", 55),
        _build_slider("level", "Brightness", 50),
        _build_slider("width", "Contrast", 50),
    ]
    return html.Div(
        [
            html.Div([_build_pane("a"), _build_pane("b")], className="panes"),
            html.Div([*sliders, html.Button("Reset the view", id="reset", className="plain")], className="bar"),
            html.Div(id="top", className="top"),
        ]
    )


def _build_pane(pane: str) -> html.Figure:
    stage = html.Div(
        html.Div(id=f"image-{pane}", className="image"),
        className="stage",
        tabIndex=0,
        role="group",
        **_attributes(aria_label="radiograph; plus and minus zoom, arrows move, 0 fits"),
    )
    return html.Figure([stage, html.Figcaption(id=f"caption-{pane}")], id=f"pane-{pane}", hidden=pane == "b")


def _build_slider(key: str, text: str, value: int) -> html.Div:
    slider = dcc.Input(id=key, type="range", min=0, max=100, step=1, value=value)
    return html.Div([html.Label(text, htmlFor=key), slider], className="slider")


def _build_answer(facts: Facts) -> html.Div:
    """Build the place of the labels, which the script fills in, with a field that finds one among many."""
    field = [html.Label("Find a label", htmlFor="label-text"), dcc.Input(id="label-text", type="search")]
    return html.Div(
        [
            html.H3("Findings", id="findings"),
            html.Div(id="compared", className="quiet"),
            html.Div(field, id="find-label", className="search", hidden=True),
            html.Div(id="labels", className="labels", role="radiogroup", **_attributes(aria_labelledby="findings")),
            html.P(" ".join(explain_decisions(facts)), className="quiet"),
            html.P(f"{HEAT_MAP} {SCALE} It has {facts.cells} x {facts.cells} cells.", className="quiet"),
        ],
        id="answer",
        className="answer",
    )


def _build_network(facts: Facts) -> html.Details:
    rows = [html.Tr([html.Th(name, scope="row"), html.Td(str(value))]) for name, value in describe_facts(facts)]
    summary = html.Summary(f"The network: {facts.network}, trained on {facts.trained_on}")
    return html.Details([summary, html.Table(html.Tbody(rows), className="facts")], className="network")


def _build_foot(run: str) -> html.P:
    return html.P(
        [
            f"cxrkeras {__version__}, run {run}. ",
            html.A("Interface for programs", href="/api/v1/docs"),
            ". Keys: n next, p previous, Escape back to the list, + and - zoom, 0 fits, arrows move. Over an image "
            "the wheel zooms, the left button moves, the right one changes contrast and brightness.",
        ],
        className="foot quiet",
    )
