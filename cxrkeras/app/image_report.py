"""The page about one image, to keep."""

import threading
from datetime import datetime

import numpy as np

from cxrkeras.data.preparation import OWN, describe_preparation
from cxrkeras.explain.overlay import plot_gradcam
from cxrkeras.explain.sheet import NUM_TOP
from cxrkeras.labels import display_name
from cxrkeras.predict.limits import explain_decisions, list_limits
from cxrkeras.predict.predictor import Answer, Facts
from cxrkeras.reports.page import Page, Picture, Section, Table, render_page
from cxrkeras.scoring.run_files import PUBLISHED
from cxrkeras.text import format_share

NOTICE = "Research software. It is not a medical device and must not be used to diagnose patients."
HEAT_MAP = "A heat map shows what raised the network's score for a label, not where a disease is."
SCALE = (
    "Each map is scaled to its own maximum (yellow), so that the colours of two maps cannot be compared; the "
    "probability states how likely the label is."
)
_drawing = threading.Lock()  # matplotlib's caches of fonts are shared


def list_warnings(answer: Answer, facts: Facts) -> list[str]:
    """List what a reader must know before any number."""
    warnings = [f"This may not be a chest radiograph like the training images: {reason}." for reason in answer.warnings]
    return [NOTICE, *list_limits(facts), *warnings]


def render_image_report(name: str, digest: str, grey: np.ndarray, answer: Answer, facts: Facts) -> str:
    """Render one HTML page about one image, which opens offline.

    digest: of the file; grey: the decoded image or a smaller one, uint8 (h, w); the answer has its size and maps.
    """
    labels = facts.labels
    seen = [label for label in labels.findings if label not in facts.unseen]
    top = sorted(seen, key=lambda label: answer.probs[label], reverse=True)[:NUM_TOP]
    maps = {label: answer.maps[labels.index(label)] for label in top}
    table = _tabulate_labels(answer, facts)
    cells = f"The network sees {facts.size} x {facts.size} pixels, a map has {facts.cells} x {facts.cells} cells."
    with _drawing:
        figure = plot_gradcam(grey, maps, answer.probs, title="", notice=cells, crop=facts.preparation.crop)
        sections = [
            Section("Findings", explain_decisions(facts), tables=[table]),
            Section("Where the network looked", [HEAT_MAP, SCALE], pictures=[
                Picture("maps", figure, "The radiograph and the heat maps of its most probable findings (Grad-CAM).")
            ]),
            Section("The network", tables=[Table(["what", "is"], describe_facts(facts))]),
        ]  # fmt: skip
        size = f"{answer.width:,} x {answer.height:,} pixels, SHA-256 of the file {digest}."
        made = f"Made on {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
        html, _ = render_page(Page(name or "Unnamed image", [size, made], list_warnings(answer, facts), sections))
    return html


def _tabulate_labels(answer: Answer, facts: Facts) -> Table:
    """List the labels in a row each, the most probable finding first, and last that nothing was found."""
    rows = []
    ranked = sorted(facts.labels, key=lambda label: answer.probs[label], reverse=True)
    for label in sorted(ranked, key=lambda name: name == facts.labels.no_finding):
        threshold = facts.thresholds[label]
        remarks = "no example in training" if label in facts.unseen else "" if threshold is not None else "no threshold"
        is_above = "yes" if label in answer.found else "no"
        limit = "" if threshold is None else format_share(threshold)
        rows.append((display_name(label), format_share(answer.probs[label]), limit, is_above, remarks))
    return Table(["label", "probability", "threshold", "above threshold", "remarks"], rows).without_empty()


def describe_facts(facts: Facts) -> list[tuple[str, str]]:
    """Put the facts of a network into words, for a table."""
    is_published = facts.fitted_on == PUBLISHED
    return [
        ("run", facts.run),
        ("network", facts.network if facts.epoch is None else f"{facts.network}, epoch {facts.epoch}"),
        ("input", f"grey, {facts.size} x {facts.size} pixels"),
        *[("prepared", describe_preparation(facts.preparation))] * (facts.preparation != OWN),
        ("trained on", facts.trained_on),
        ("split", facts.split_name),
        ("probabilities", facts.calibration if is_published else f"{facts.calibration}, fitted on {facts.fitted_on}"),
        ("thresholds", facts.rule if is_published else f"{facts.rule}, chosen on {facts.fitted_on}"),
        *((name, value) for name, value in facts.about.items() if name != "split"),
        *facts.versions.items(),
    ]
