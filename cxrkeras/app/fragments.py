"""The parts of the page that show results."""

import json
from collections.abc import Sequence

from dash import html

from cxrkeras import labels
from cxrkeras.predict.answers import put_apart
from cxrkeras.predict.predictor import Facts
from cxrkeras.reports.figures import spell
from cxrkeras.text import format_share, num_of

NUM_HIGHEST = 3  # labels in a row of the overview


def write_state(results: Sequence[dict]) -> str:
    """How many of the files have been answered."""
    if not results:
        return ""
    answered = sum("labels" in result for result in results)
    failed = sum("problem" in result for result in results)
    text = f"{answered + failed:,} of {num_of(len(results), 'file')} answered"
    return text + (f", {failed:,} of them not readable" if failed else "")


def write_row(result: dict, view: dict) -> html.Tr:
    """A row of the overview; a result that is held back has its reason in place of labels."""
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
    if is_held_back(result, view):
        cells.append(html.Td(f"Not shown: {'; '.join(result['warnings'])}.", colSpan=2, className="problem"))
    else:
        rows = put_apart(result["labels"])
        found = [
            html.Span(spell(one["label"]), className="tag" if one["label"] in labels.FINDINGS else "tag plain")
            for one in rows
            if one["is_found"]
        ]
        if result["warnings"]:
            found.append(html.Span("unlike the training images", className="tag problem"))
        highest = [f"{spell(one['label'])} {format_share(one['probability'])}" for one in rows[:NUM_HIGHEST]]
        first, *others = [html.Span(f"{', ' * (n > 0)}{text}") for n, text in enumerate(highest)]
        cells += [
            html.Td(found or "none", className="found"),
            html.Td([first, html.Span(others, className="others")], className="highest"),
        ]
    return html.Tr(cells, className="open" if result["id"] == view["open"] else "")


def is_held_back(result: dict, view: dict) -> bool:
    """Whether a result is not shown, as its image may be no chest radiograph and the person has not insisted."""
    return bool(result.get("warnings")) and result["id"] not in view["insisted"]


def write_warning(result: dict, view: dict) -> html.Div:
    """Why an image may be no chest radiograph, and the button of a person who insists."""
    text = f"{result['name']} may be no chest radiograph like the training images: {'; '.join(result['warnings'])}."
    button = html.Button("Show the result anyway", **{"data-insist": str(result["id"])})
    return html.Div([html.P(text), *([button] if is_held_back(result, view) else [])], className="warning")


def write_choices(result: dict, other: dict | None, facts: Facts) -> list[dict]:
    """The 15 labels as choices, each with its probability as a bar and its threshold as a mark; `other` beside."""
    beside = {one["label"]: one for one in other["labels"]} if other else {}
    options = []
    for one in put_apart(result["labels"]):
        rows = [one] + ([beside[one["label"]]] if beside else [])
        note = " (no example in training)" if one["label"] in facts.unseen else ""
        bars = [write_bar(row) for row in rows]
        text = html.Span([html.Span(spell(one["label"]) + note, className="label"), *bars], className="row")
        if one["label"] not in labels.FINDINGS:
            text.className += " apart"
        options.append({"label": text, "value": one["label"]})
    return options


def write_bar(one: dict) -> html.Span:
    cut = one["threshold"]
    mark = (
        []
        if cut is None
        else [html.Span(className="mark", style={"left": f"{100 * cut:.2f}%"}, title=f"threshold {format_share(cut)}")]
    )
    against = "no threshold" if cut is None else f"threshold {format_share(cut)}"
    bar = html.Span(className="fill", style={"width": f"{100 * one['probability']:.2f}%"})
    return html.Span(
        [
            html.Span([bar, *mark], className="track"),
            html.Span(format_share(one["probability"]), className="number"),
            html.Span(against, className="against"),
        ],
        className="bar-row over" if one["is_found"] else "bar-row",
        title="over its threshold" if one["is_found"] else "",
    )


def write_film(result: dict | None, own: dict | None, label: str | None, without_map: bool) -> tuple[list, str]:
    """The picture of an image with the heat map of a label on it, and what is to be said beneath."""
    if not result or not own:
        return [], "" if not result else "loading"
    layers = [html.Img(src=own["picture"], alt=f"radiograph {result['name']}", className="grey", draggable="false")]
    heat = own["maps"].get(label)
    caption = result["name"]
    if heat and not without_map:
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


def write_small(one: dict, own: dict, label: str | None, ratio: float) -> html.Button:
    """A small picture of an image with the heat map of one label, that chooses it."""
    name = one["label"]
    layers = [html.Img(src=own["picture"], alt="", className="grey")]
    text = [html.Span(f"{spell(name)} {format_share(one['probability'])}")]
    if own["maps"][name]["has_evidence"]:
        layers.append(html.Img(src=own["maps"][name]["layer"], alt="", className="heat"))
    else:
        text.append(html.Span("no region raised its score", className="quiet none"))
    return html.Button(
        [html.Span(layers, className="frame", style={"aspectRatio": f"{ratio:.6f}"}), *text],
        className="tile chosen" if name == label else "tile",
        **{"data-label": name, "aria-pressed": json.dumps(name == label)},
    )
