"""What the page is made of before there are results."""

from dash import dcc, html

from cxrkeras import __version__, labels
from cxrkeras.app.image_report import HEAT_MAP, NOTICE, PROBABILITY, SCALE, SYNTHETIC, THRESHOLD, describe_facts
from cxrkeras.labels import NO_FINDING
from cxrkeras.predict.answers import LARGEST_PICTURE
from cxrkeras.predict.predictor import Facts
from cxrkeras.reports.figures import spell


def build_layout(facts: Facts, largest_file: int) -> html.Div:
    """The whole page, with the notices that are always there; `largest_file` in bytes."""
    banner = []
    if facts.is_synthetic:
        banner = [html.P(SYNTHETIC, className="banner")]
    kinds = [
        {"label": "all images", "value": "all"},
        {"label": "with a finding over its threshold", "value": "found"},
        {"label": "unlike the training images", "value": "strange"},
        {"label": "not readable", "value": "problem"},
        *({"label": f"{spell(label)} over its threshold", "value": label} for label in labels.LABELS),
    ]
    return html.Div(
        [
            dcc.Store(id="results", data=[]),
            dcc.Store(id="view", data={"open": None, "beside": None, "insisted": [], "sort": "order"}),
            dcc.Store(id="pictures", data={}),
            dcc.Store(
                id="limits",
                data={
                    "file": largest_file,
                    "picture": LARGEST_PICTURE,
                    "run": facts.run,
                    "apart": [NO_FINDING, *facts.unseen],  # labels with no place in an image, or never learned
                    "notices": [SYNTHETIC] * facts.is_synthetic + [NOTICE],
                },
            ),
            dcc.Download(id="csv-file"),
            html.Header(
                [
                    html.H1("cxrkeras"),
                    html.P("What a network finds in chest radiographs, and where it looked.", className="quiet"),
                    html.Button("Light theme", id="theme", className="plain"),
                ]
            ),
            html.P(
                NOTICE,
                className="notice",
                role="note",
            ),
            *banner,
            html.P(
                "The server does not answer. Keep this page open: it goes on by itself once the server is there again.",
                id="offline",
                className="warning",
                role="alert",
                hidden=True,
            ),
            html.Main(
                [
                    html.Section(
                        [
                            html.Div(id="drop", className="drop"),
                            html.P(
                                "PNG, JPEG and DICOM. Files go to this server's memory only; nothing is kept.",
                                className="quiet",
                            ),
                            html.Progress(id="progress", className="progress", **{"aria-label": "files answered"}),
                            html.P(id="state", role="status", className="state"),
                        ],
                        className="upload",
                        **{"aria-label": "upload"},
                    ),
                    _build_overview(kinds),
                    _build_detail(facts.cells),
                    html.Details(
                        [
                            html.Summary(f"The network: {facts.network}, trained on {facts.trained_on}"),
                            html.Table(
                                html.Tbody(
                                    [
                                        html.Tr([html.Th(name, scope="row"), html.Td(str(value))])
                                        for name, value in describe_facts(facts)
                                    ]
                                ),
                                className="facts",
                            ),
                        ],
                        className="network",
                    ),
                ]
            ),
            html.P(
                [
                    f"cxrkeras {__version__}, run {facts.run}. ",
                    html.A("Interface for programs", href="/api/v1/docs"),
                    ". Keys: n next, p previous, Escape back to the list, + and - zoom, 0 fits, arrows move. Over an "
                    "image the wheel zooms, the left button moves, the right one changes contrast and brightness.",
                ],
                className="foot quiet",
            ),
        ],
        className="page",
    )


def _build_overview(kinds: list[dict]) -> html.Section:
    heads = [
        html.Th("Image", className="picture", scope="col"),
        *(
            html.Th(html.Button(text, **{"data-sort": key}), scope="col", id=f"head-{key}", className=key)
            for key, text in (
                ("name", "Name"),
                ("found", "Above threshold"),
                ("highest", "Most probable findings"),
            )
        ),
    ]
    return html.Section(
        [
            html.Div(
                [
                    html.Div([html.Label("Find a name", htmlFor="search"), dcc.Input(id="search", type="search")]),
                    html.Div(
                        [
                            html.Label("Show", htmlFor="show"),
                            dcc.Dropdown(
                                id="show", options=kinds, value="all", clearable=False, searchable=False, maxHeight=480
                            ),
                        ]
                    ),
                    html.P(id="count", className="quiet", role="status"),
                    html.Button("Save all as CSV", id="csv"),
                    html.Button("Remove all", id="clear", className="plain"),
                ],
                className="bar",
            ),
            html.Table([html.Thead(html.Tr(heads)), html.Tbody(id="rows")], className="results"),
        ],
        id="overview",
        hidden=True,
        **{"aria-label": "results"},
    )


def _build_detail(cells: int) -> html.Section:
    def build_stage(pane: str) -> html.Figure:
        return html.Figure(
            [
                html.Div(
                    html.Div(id=f"film-{pane}", className="film"),
                    className="stage",
                    tabIndex=0,
                    role="group",
                    **{"aria-label": "radiograph; plus and minus zoom, arrows move, 0 fits"},
                ),
                html.Figcaption(id=f"caption-{pane}"),
            ],
            id=f"heading-{pane}",
            hidden=pane == "b",
        )

    def build_slider(key: str, text: str, value: int, largest: int) -> html.Div:
        slider = dcc.Input(id=key, type="range", min=0, max=largest, step=1, value=value)
        return html.Div([html.Label(text, htmlFor=key), slider], className="slider")

    return html.Section(
        [
            html.Div(
                [
                    html.Button("Back to the list", **{"data-go": "back"}),
                    html.Button("Previous", **{"data-go": "previous"}),
                    html.Button("Next", **{"data-go": "next"}),
                    html.Span(id="position", className="quiet"),
                    html.Button("Save the picture", id="save-picture"),
                    html.Button("Save a report", id="save-report"),
                    html.Div(
                        [
                            html.Label("Beside it", htmlFor="beside"),
                            dcc.Dropdown(id="beside", placeholder="a second image", searchable=False),
                        ],
                        className="beside",
                    ),
                ],
                className="bar",
            ),
            html.Div(id="about", className="about"),
            html.Div(id="strange", role="alert"),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div([build_stage("a"), build_stage("b")], className="stages"),
                            html.Div(
                                [
                                    build_slider("opacity", "Opacity of the heat map", 55, 100),
                                    build_slider("level", "Brightness", 50, 100),
                                    build_slider("width", "Contrast", 50, 100),
                                    html.Button("Reset the view", id="reset", className="plain"),
                                ],
                                className="bar",
                            ),
                            html.Div(id="top", className="top"),
                        ],
                        className="look",
                    ),
                    html.Div(
                        [
                            html.H3("Findings", id="findings"),
                            html.Div(id="compared", className="quiet"),
                            dcc.RadioItems(id="label", className="choices", labelClassName="choice"),
                            html.P(f"{PROBABILITY} {THRESHOLD}", className="quiet"),
                            html.P(f"{HEAT_MAP} {SCALE} It has {cells} x {cells} cells.", className="quiet"),
                        ],
                        id="answer",
                        className="answer",
                        role="group",
                        **{"aria-labelledby": "findings"},
                    ),
                ],
                className="columns",
            ),
        ],
        id="detail",
        hidden=True,
        **{"aria-label": "one image"},
    )
