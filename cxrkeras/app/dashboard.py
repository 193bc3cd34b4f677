"""The page: Dash on the Flask server, the first user of the interface for programs.

The page keeps the files and answers in the browser's memory, sends one file at a time, and tells Dash what there is to
show; nothing of it is kept on the server.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import dash
import flask
from dash import Dash, Input, Output, State, html

from cxrkeras import labels
from cxrkeras.app.fragments import (
    is_held_back,
    write_choices,
    write_film,
    write_row,
    write_small,
    write_state,
    write_warning,
)
from cxrkeras.app.layout import build_layout
from cxrkeras.explain.sheet import NUM_TOP
from cxrkeras.predict.answers import LARGEST_PICTURE, encode_csv, tabulate_results
from cxrkeras.predict.predictor import Facts
from cxrkeras.text import num_of

ASSETS = Path(__file__).parent / "assets"
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
    "highest": lambda result, shown: (
        -max((one["probability"] for one in shown if one["label"] in labels.FINDINGS), default=-1)
    ),
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
    page.layout = build_layout(facts, largest_file)

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
            [write_row(result, view) for result in chosen] or [html.Tr(html.Td("No image matches.", colSpan=4))],
            f"{len(chosen):,} of {num_of(len(results), 'image')}",
            not results,
            write_state(results),
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
        shown = None if other is None or is_held_back(other, view) else other
        compared = [html.P(f"Upper bars: {result['name']}. Lower bars: {shown['name']}.")] if shown else []
        return (
            False,
            place,
            [html.H2(result["name"]), html.P(size, className="quiet")],
            [write_warning(one, view) for one in (result, other) if one and one["warnings"]],
            is_held_back(result, view),
            compared,
            [] if is_held_back(result, view) else write_choices(result, shown, facts),
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
            film, caption = write_film(result, own, label, bool(result) and is_held_back(result, view))
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
        if not (result and own) or is_held_back(result, view):
            return []
        seen = [one for one in result["labels"] if one["label"] in set(labels.FINDINGS) - set(facts.unseen)]
        ratio = result["width"] / result["height"]
        return [write_small(one, own, label, ratio) for one in seen[:NUM_TOP]]

    page.clientside_callback(
        dash.ClientsideFunction("cxr", "beside"), Output("beside", "className"), Input("beside", "value")
    )
    page.clientside_callback(dash.ClientsideFunction("cxr", "limits"), Output("limits", "id"), Input("limits", "data"))

    @page.callback(Output("csv-file", "data"), Input("csv", "n_clicks"), State("results", "data"))
    def save_table(clicks, results):
        finished = [result for result in results if "labels" in result or "problem" in result]
        if not clicks or not finished:
            raise dash.exceptions.PreventUpdate
        return {"content": encode_csv(tabulate_results(finished, facts.run)), "filename": "cxrkeras.csv"}

    return page


def choose_results(results: Sequence[dict], text: str, show: str, view: dict) -> list[dict]:
    """The results whose name has `text` in it and that are of the kind `show`, in the order of the view.

    show: all, found (a finding over its threshold), strange (warned of), problem, or a label that is over its
    threshold. What is held back is neither found nor sorted by its labels.
    """
    shown = {one["id"]: [] if is_held_back(one, view) else one.get("labels", []) for one in results}

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
