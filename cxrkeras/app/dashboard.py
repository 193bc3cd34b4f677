"""The page: Dash on the Flask server, the first user of the interface for programs.

The page keeps the files and answers in the browser's memory, sends one file at a time, and tells Dash what there is to
show; nothing of it is kept on the server.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import dash
import flask
from dash import Dash, Input, Output, State, dcc, html

from cxrkeras import __version__, labels
from cxrkeras.app.predictor import Facts
from cxrkeras.app.report import HEAT_MAP, NOTICE, PROBABILITY, SYNTHETIC, THRESHOLD, describe_facts
from cxrkeras.app.results import tabulate_results
from cxrkeras.explain.sheet import NUM_TOP
from cxrkeras.reports.figures import spell

ASSETS = Path(__file__).parent / "assets"
LARGEST_PICTURE = 2048  # pixels of the longer side of an image as it is shown
NUM_HIGHEST = 3  # labels in a row of the overview
_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
{%favicon%}
{%css%}
</head>
<body>
<svg width="0" height="0" aria-hidden="true"><filter id="window" color-interpolation-filters="sRGB">
<feComponentTransfer><feFuncR type="linear"/><feFuncG type="linear"/><feFuncB type="linear"/></feComponentTransfer>
</filter></svg>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""
SORTS: dict[str, Callable[[dict, list[dict]], object]] = {
    "order": lambda result, shown: result["id"],
    "name": lambda result, shown: result["name"].lower(),
    "found": lambda result, shown: -sum(one["is_found"] and one["label"] in labels.FINDINGS for one in shown),
    "highest": lambda result, shown: -max((one["probability"] for one in shown), default=-1),
}


def mount_dashboard(server: flask.Flask, facts: Facts, largest_file: int) -> Dash:
    """Mount the page at `/` of a server that has the interface for programs."""
    page = Dash(
        "cxrkeras",
        server=server,
        assets_folder=str(ASSETS),
        title="cxrkeras",
        update_title=None,
        index_string=_INDEX,
        add_log_handler=False,
        enable_mcp=False,
    )
    page.layout = _build_layout(facts, largest_file)

    @page.callback(
        Output("rows", "children"),
        Output("count", "children"),
        Output("overview", "hidden"),
        Output("state", "children"),
        Input("results", "data"),
        Input("view", "data"),
        Input("search", "value"),
        Input("show", "value"),
    )
    def list_results(results, view, text, show):
        chosen = choose_results(results, text or "", show, view)
        return (
            [_write_row(result, view) for result in chosen] or [html.Tr(html.Td("No image matches.", colSpan=4))],
            f"{len(chosen):,} of {len(results):,} images",
            not results,
            _write_state(results),
        )

    @page.callback(
        Output("detail", "hidden"),
        Output("position", "children"),
        Output("about", "children"),
        Output("strange", "children"),
        Output("answer", "hidden"),
        Output("compared", "children"),
        Output("label", "options"),
        Output("beside", "options"),
        Output("heading-b", "hidden"),
        Input("view", "data"),
        State("results", "data"),
        State("search", "value"),
        State("show", "value"),
    )
    def show_image(view, results, text, show):
        by_id = {result["id"]: result for result in results}
        result, other = by_id.get(view["open"]), by_id.get(view["beside"])
        if not result or "labels" not in result:
            return True, "", [], [], True, [], [], [], True
        order = [one["id"] for one in choose_results(results, text or "", show, view) if "labels" in one]
        place = f"image {order.index(result['id']) + 1} of {len(order)}" if result["id"] in order else ""
        others = [
            {"label": one["name"], "value": one["id"]}
            for one in results
            if "labels" in one and one["id"] != result["id"]
        ]
        size = f"{result['width']:,} x {result['height']:,} pixels"
        if max(result["width"], result["height"]) > LARGEST_PICTURE:
            size += f", shown with {LARGEST_PICTURE:,} on the longer side"
        other = other if other and "labels" in other else None
        is_held_back = _is_held_back(result, view)
        shown = None if other is None or _is_held_back(other, view) else other
        compared = [html.P(f"Upper bars: {result['name']}. Lower bars: {shown['name']}.")] if shown else []
        return (
            False,
            place,
            [html.H2(result["name"]), html.P(size, className="quiet")],
            [_write_warning(one, view) for one in (result, other) if one and one["warnings"]],
            is_held_back,
            compared,
            [] if is_held_back else _write_choices(result, shown, facts),
            others,
            other is None,
        )

    @page.callback(
        Output("film-a", "children"),
        Output("film-b", "children"),
        Output("caption-a", "children"),
        Output("caption-b", "children"),
        Input("pictures", "data"),
        Input("label", "value"),
        Input("view", "data"),
        State("results", "data"),
    )
    def show_pictures(pictures, label, view, results):
        by_id = {result["id"]: result for result in results}
        films, captions = [], []
        for key in (view["open"], view["beside"]):
            result, own = by_id.get(key), pictures.get(str(key))
            film, caption = _write_film(result, own, label, bool(result) and _is_held_back(result, view))
            films.append(film)
            captions.append(caption)
        return *films, *captions

    @page.callback(
        Output("top", "children"),
        Input("pictures", "data"),
        Input("view", "data"),
        State("label", "value"),  # a tile that was pressed must stay what it is, with the focus
        State("results", "data"),
    )
    def show_top(pictures, view, label, results):
        result = next((one for one in results if one["id"] == view["open"]), None)
        own = pictures.get(str(view["open"]))
        if not (result and own) or _is_held_back(result, view):
            return []
        seen = [one for one in result["labels"] if one["label"] not in facts.unseen]
        ratio = result["width"] / result["height"]
        return [_write_small(one, own, label, ratio) for one in seen[:NUM_TOP]]

    page.clientside_callback(
        dash.ClientsideFunction("cxr", "beside"), Output("beside", "className"), Input("beside", "value")
    )
    page.clientside_callback(dash.ClientsideFunction("cxr", "limits"), Output("limits", "id"), Input("limits", "data"))

    @page.callback(Output("csv-file", "data"), Input("csv", "n_clicks"), State("results", "data"))
    def save_table(clicks, results):
        finished = [result for result in results if "labels" in result or "problem" in result]
        if not clicks or not finished:
            raise dash.exceptions.PreventUpdate
        return {"content": tabulate_results(finished, facts.run).to_csv(index=False), "filename": "cxrkeras.csv"}

    return page


def choose_results(results: Sequence[dict], text: str, show: str, view: dict) -> list[dict]:
    """The results whose name has `text` in it and that are of the kind `show`, in the order of the view.

    show: all, found (a finding over its threshold), strange (warned of), problem, or a label that is over its
    threshold. What is held back is neither found nor sorted by its labels.
    """
    shown = {one["id"]: [] if _is_held_back(one, view) else one.get("labels", []) for one in results}

    def is_wanted(result: dict) -> bool:
        over = {one["label"] for one in shown[result["id"]] if one["is_found"]}
        kinds = {
            "all": True,
            "found": bool(over & set(labels.FINDINGS)),
            "strange": bool(result.get("warnings")),
            "problem": "problem" in result,
        }
        return text.lower() in result["name"].lower() and kinds.get(show, show in over)

    sort = SORTS.get(view["sort"], SORTS["order"])
    return sorted(filter(is_wanted, results), key=lambda result: sort(result, shown[result["id"]]))


def _build_layout(facts: Facts, largest_file: int) -> html.Div:
    banner = []
    if facts.is_synthetic:
        banner = [html.P(SYNTHETIC, className="banner")]
    kinds = [
        {"label": "all images", "value": "all"},
        {"label": "with a finding over its threshold", "value": "found"},
        {"label": "unlike a chest radiograph", "value": "strange"},
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
            for key, text in (("name", "Name"), ("found", "Over their threshold"), ("highest", "Highest probabilities"))
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
                            html.P(
                                f"{HEAT_MAP} It has {cells} x {cells} cells; yellow is the most.", className="quiet"
                            ),
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


def _write_state(results: Sequence[dict]) -> str:
    if not results:
        return ""
    answered = sum("labels" in result for result in results)
    failed = sum("problem" in result for result in results)
    text = f"{answered + failed:,} of {len(results):,} files answered"
    return text + (f", {failed:,} of them not readable" if failed else "")


def _write_row(result: dict, view: dict) -> html.Tr:
    picture = html.Img(src=result["picture"], alt="") if result.get("picture") else ""
    name = result["name"]
    if "labels" not in result:
        text = result["problem"]["detail"] if "problem" in result else result["state"]
        kind = "problem" if "problem" in result else "quiet"
        return html.Tr([html.Td(picture), html.Td(name, className="name"), html.Td(text, colSpan=2, className=kind)])
    cells = [
        html.Td(picture, className="picture"),
        html.Td(html.Button(name, className="link", **{"data-open": str(result["id"])}), className="name"),
    ]
    if _is_held_back(result, view):
        cells.append(html.Td(f"Not shown: {'; '.join(result['warnings'])}.", colSpan=2, className="problem"))
    else:
        found = [
            html.Span(spell(one["label"]), className="tag" if one["label"] in labels.FINDINGS else "tag plain")
            for one in result["labels"]
            if one["is_found"]
        ]
        if result["warnings"]:
            found.append(html.Span("may be no chest radiograph", className="tag problem"))
        highest = [f"{spell(one['label'])} {one['probability']:.1%}" for one in result["labels"][:NUM_HIGHEST]]
        cells += [html.Td(found or "none", className="found"), html.Td(", ".join(highest), className="highest")]
    return html.Tr(cells, className="open" if result["id"] == view["open"] else "")


def _is_held_back(result: dict, view: dict) -> bool:
    """Whether a result is not shown, as its image may be no chest radiograph and the person has not insisted."""
    return bool(result.get("warnings")) and result["id"] not in view["insisted"]


def _write_warning(result: dict, view: dict) -> html.Div:
    text = f"{result['name']} may be no chest radiograph like the training images: {'; '.join(result['warnings'])}."
    button = html.Button("Show the result anyway", **{"data-insist": str(result["id"])})
    return html.Div([html.P(text), *([button] if _is_held_back(result, view) else [])], className="warning")


def _write_choices(result: dict, other: dict | None, facts: Facts) -> list[dict]:
    """The 15 labels as choices, each with its probability as a bar and its threshold as a mark; `other` beside."""
    beside = {one["label"]: one for one in other["labels"]} if other else {}
    options = []
    for one in result["labels"]:
        rows = [one] + ([beside[one["label"]]] if beside else [])
        note = " (no example in training)" if one["label"] in facts.unseen else ""
        bars = [_write_bar(row) for row in rows]
        text = html.Span([html.Span(spell(one["label"]) + note, className="label"), *bars], className="row")
        options.append({"label": text, "value": one["label"]})
    return options


def _write_bar(one: dict) -> html.Span:
    cut = one["threshold"]
    mark = (
        []
        if cut is None
        else [html.Span(className="mark", style={"left": f"{100 * cut:.2f}%"}, title=f"threshold {cut:.1%}")]
    )
    against = "no threshold" if cut is None else f"threshold {cut:.1%}"
    bar = html.Span(className="fill", style={"width": f"{100 * one['probability']:.2f}%"})
    return html.Span(
        [
            html.Span([bar, *mark], className="track"),
            html.Span(f"{one['probability']:.1%}", className="number"),
            html.Span(against, className="against"),
        ],
        className="bar-row over" if one["is_found"] else "bar-row",
        title="over its threshold" if one["is_found"] else "",
    )


def _write_film(result: dict | None, own: dict | None, label: str | None, is_held_back: bool) -> tuple[list, str]:
    """The picture of an image with the heat map of a label on it, and what is to be said beneath."""
    if not result or not own:
        return [], "" if not result else "loading"
    layers = [html.Img(src=own["picture"], alt=f"radiograph {result['name']}", className="grey", draggable="false")]
    heat = own["maps"].get(label)
    caption = result["name"]
    if heat and not is_held_back:
        if heat["has_evidence"]:
            text = f"heat map of {spell(label)}"
            layers.append(html.Img(src=heat["layer"], alt=text, className="heat", draggable="false"))
        else:
            text = f"no region raised the score of {spell(label)}"
        caption = f"{caption}: {text}"
    # A map covers the whole image, whatever its shape.
    ratio = result["width"] / result["height"]
    style = {"aspectRatio": f"{ratio:.6f}", "width": f"min(100cqw, 100cqh * {ratio:.6f})"}
    return [html.Div(layers, className="frame", style=style)], caption


def _write_small(one: dict, own: dict, label: str | None, ratio: float) -> html.Button:
    name = one["label"]
    layers = [html.Img(src=own["picture"], alt="", className="grey")]
    if own["maps"][name]["has_evidence"]:
        layers.append(html.Img(src=own["maps"][name]["layer"], alt="", className="heat"))
    return html.Button(
        [
            html.Span(layers, className="frame", style={"aspectRatio": f"{ratio:.6f}"}),
            html.Span(f"{spell(name)} {one['probability']:.1%}"),
        ],
        className="tile chosen" if name == label else "tile",
        **{"data-label": name, "aria-pressed": json.dumps(name == label)},
    )
