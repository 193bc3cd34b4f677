"""The model card of an adopted network: what is known of it, and what is not."""

from cxrkeras.data.preparation import describe_preparation
from cxrkeras.files import write_text
from cxrkeras.reports.page import render
from cxrkeras.reports.sections import format_origin
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import MODEL_CARD, OOD_CHECK, PUBLISHED


def write_card(fold: Fold) -> None:
    """Write `model_card.md` in the folder of an adopted public network."""
    adopted, (calibration, thresholds) = fold.config.adopted, fold.operating_points
    assert adopted is not None
    is_published = calibration.fitted_on.part == PUBLISHED
    rows = []
    for label in fold.labels:
        value = thresholds.values[label]
        rows.append([label, "none" if value is None else f"{value:.4g}", thresholds.notes[label]])
    text = render(
        "adopted_card.md",
        run=fold.name,
        adopted=adopted,
        labels=fold.labels,
        preparation=describe_preparation(fold.config.preparation),
        rule=thresholds.rule,
        fitted_on="" if is_published else f"{calibration.method}, on {format_origin(calibration.fitted_on)}",
        rows=rows,
        has_check=(fold.folder / OOD_CHECK).is_file(),
        versions=fold.config.versions,
    )
    write_text(fold.folder / MODEL_CARD, text)
