"""The page about external predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrkeras.errors import InputError
from cxrkeras.files import write_text
from cxrkeras.progress import SILENT, Progress
from cxrkeras.reports import sections
from cxrkeras.reports.figures import format_interval
from cxrkeras.reports.page import Page, save_page
from cxrkeras.scoring.evaluation import MEAN, Evaluation, evaluate, evaluate_groups
from cxrkeras.scoring.external_predictions import ExternalPredictions, read_external
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.operating_points import OperatingPoints, build_origin, fit_operating_points
from cxrkeras.scoring.run_files import REPORT
from cxrkeras.text import num_of


@dataclass(frozen=True)
class ScoredFile:
    """External predictions, scored: the page's path, the scores, the split's name, and notes on them."""

    path: Path
    evaluation: Evaluation
    split_name: str
    notes: list[str]


def score_file(
    path: Path,
    label_file: Path,
    validation: Path | None,
    out: Path,
    *,
    ignore: Sequence[str] = (),
    normal: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ScoredFile:
    """Score external predictions and write a page with its figures and scores.csv into `out`.

    Calibration and thresholds are fitted on the predictions of `validation` images, if there are any, which must be of
    other patients; without them the page has none. ignore, normal: as for `read_dataset`.
    """
    main = read_external(path, label_file, ignore=ignore, normal=normal)
    predictions, notes = main.predictions, list(main.notes)
    points = None
    if validation is None:
        notes.append(
            "no predictions of validation images: no thresholds and no calibration, which test must not choose"
        )
    else:
        points = _fit(read_external(validation, label_file, ignore=ignore, normal=normal), main, validation)
    evaluation = evaluate(predictions, points=points, replicates=replicates, seed=seed, progress=progress)
    source = f"{path.name}; {main.set_name} set of split {main.split_name}: {predictions.counts}"
    groups = evaluate_groups(predictions, main.demographics, replicates=replicates, seed=seed, progress=progress)
    chapters = [
        *sections.build_scores(evaluation, points, source=source),
        sections.build_groups(groups, predictions.labels, source=source),
    ]
    row = evaluation.scores.loc[MEAN]
    lede = [
        f"Mean AUC {format_interval(row['auc'], evaluation.interval(MEAN), 3)} over {row['note']} findings.",
        f"Source: {source}. Truth from {label_file.name}; the file holds {main.kind}.",
    ]
    page = Page(f"Scores of {path.name}", lede, [f"{note}." for note in notes], chapters)
    save_page(page, out / f"{REPORT}.html")
    facts = {"file": path.name, "part": main.set_name, "split_name": main.split_name}
    scores = evaluation.scores.reset_index().assign(**facts, patients=predictions.num_patients)
    write_text(out / "scores.csv", scores.to_csv(index=False))
    write_text(out / "groups.csv", groups.assign(**facts).to_csv(index=False))
    return ScoredFile(out / f"{REPORT}.html", evaluation, main.split_name, notes)


def _fit(validation: ExternalPredictions, main: ExternalPredictions, path: Path) -> OperatingPoints:
    if validation.predictions.labels != main.predictions.labels:
        raise InputError(f"{path} has other labels than the predictions: {validation.predictions.labels.describe()}")
    if validation.kind != main.kind:
        raise InputError(f"{path} holds {validation.kind} and the predictions hold {main.kind}: give both as one kind")
    if shared := set(validation.predictions.patient_ids) & set(main.predictions.patient_ids):
        raise InputError(
            f"{num_of(len(shared), 'patient', 'is')} in {path} and in the predictions too (first: {min(shared)}): "
            "thresholds must come from other patients"
        )
    fitted_on = build_origin(validation.predictions, validation.split_name, None)
    return fit_operating_points(validation.predictions, fitted_on)
