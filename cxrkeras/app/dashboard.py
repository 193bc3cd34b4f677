"""The page: Dash on the Flask server, the first user of the interface for programs.

The scripts in `assets` own the page's state and draw the results, from answers of the interface for programs. The
server gives the page before there are results, and turns results into CSV; it keeps nothing.
"""

from pathlib import Path

import flask
from dash import ClientsideFunction, Dash, Input, Output
from dash.exceptions import PreventUpdate

from cxrkeras.app.layout import build_layout
from cxrkeras.predict.answers import encode_csv, tabulate_results
from cxrkeras.predict.predictor import Facts

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


def mount_dashboard(server: flask.Flask, facts: Facts, largest_file: int) -> Dash:
    """Mount the page at `/` of a server that has the interface for programs."""
    page = Dash(
        "cxrkeras",
        server=server,  # type: ignore[arg-type] # Flask's application is taken too
        assets_folder=str(ASSETS),
        title="cxrkeras",
        update_title=None,  # type: ignore[arg-type] # as documented
        index_string=_INDEX,
        add_log_handler=False,
        enable_mcp=False,
    )
    page.layout = build_layout(facts, largest_file)

    def call_script(name: str, *dependencies: Input | Output) -> None:
        function = ClientsideFunction("page", name)
        page.clientside_callback(function, *dependencies, prevent_initial_call=True)

    call_script("filterList", Input("search", "value"), Input("show", "value"))
    call_script("filterLabels", Input("label-text", "value"))
    call_script("compare", Input("compare", "value"))
    call_script("listAnswered", Output("answered", "data"), Input("csv", "n_clicks"))

    @page.callback(Output("csv-file", "data"), Input("answered", "data"), prevent_initial_call=True)
    def render_table(answered):
        if not answered:
            raise PreventUpdate
        return {"content": encode_csv(tabulate_results(answered, facts.labels, facts.run)), "filename": "cxrkeras.csv"}

    return page
