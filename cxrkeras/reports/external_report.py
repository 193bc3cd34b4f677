"""The page about other people's predictions."""

from collections.abc import Callable
from pathlib import Path

from cxrkeras.errors import InputError
from cxrkeras.files import write_text
from cxrkeras.reports import sections
from cxrkeras.reports.figures import format_interval
from cxrkeras.reports.page import Page, save_page
from cxrkeras.scoring.evaluation import MEAN, Evaluation, evaluate, evaluate_groups
from cxrkeras.scoring.external_predictions import Foreign, read_foreign
from cxrkeras.scoring.find_runs import REPORT
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.operating_points import describe_part, fit_operating_points
from cxrkeras.text import num_of


def score_file(
    path: Path,
    label_file: Path,
    validation: Path | None,
    out: Path,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> tuple[Path, Evaluation, str, list[str]]:
    """Score predictions of any make and write a page with its figures and scores.csv into `out`.

    Calibration and thresholds are fitted on the predictions of `validation` images, if there are any, which must be of
    other patients; without them the page has none. Returns the page, the scores, the split's name, and what
    is to be said about them.
    """
    main = read_foreign(path, label_file)
    predictions, notes = main.predictions, list(main.notes)
    calibration = thresholds = None
    if validation is None:
        notes.append(
            "no predictions of validation images: no thresholds and no calibration, which test must not choose"
        )
    else:
        calibration, thresholds = _fit(read_foreign(validation, label_file), main, validation)
    evaluation = evaluate(
        predictions,
        calibration=calibration,
        thresholds=thresholds,
        replicates=replicates,
        seed=seed,
        progress=lambda done, total: progress("intervals", done, total),
    )
    source = (
        f"{path.name}; {main.part} part of split {main.split_name}: {num_of(len(predictions.truth), 'image')} of "
        f"{num_of(predictions.num_patients, 'patient')}"
    )
    chapters = [
        sections.discrimination(evaluation, source=source),
        sections.roc(evaluation, source=source),
        sections.precision_recall(evaluation, source=source),
    ]
    if calibration and thresholds:
        chapters.append(sections.decisions(evaluation, thresholds, source=source))
        chapters.append(sections.reliability(evaluation, calibration, source=source))
    groups = evaluate_groups(
        predictions,
        main.people,
        replicates=replicates,
        seed=seed,
        progress=lambda done, total: progress("scores by sex, age and view", done, total),
    )
    chapters.append(sections.groups(groups, source=source))
    row = evaluation.scores.loc[MEAN]
    lede = [
        f"Mean AUC {format_interval(row['auc'], evaluation.interval(MEAN), 3)} over {row['note']} findings.",
        f"Source: {source}. Truth from {label_file.name}; the file holds {main.kind}.",
    ]
    page = Page(f"Scores of {path.name}", lede, [f"{note}." for note in notes], chapters)
    save_page(page, out / f"{REPORT}.html")
    facts = {"file": path.name, "part": main.part, "split_name": main.split_name, "patients": predictions.num_patients}
    write_text(out / "scores.csv", evaluation.scores.reset_index().assign(**facts).to_csv(index=False))
    write_text(out / "groups.csv", groups.assign(**facts | {"patients": groups["patients"]}).to_csv(index=False))
    return out / f"{REPORT}.html", evaluation, main.split_name, notes


def _fit(validation: Foreign, main: Foreign, path: Path):
    if validation.predictions.names != main.predictions.names:
        raise InputError(f"{path} has other labels than the predictions: {', '.join(validation.predictions.names)}")
    if validation.kind != main.kind:
        raise InputError(f"{path} holds {validation.kind} and the predictions hold {main.kind}: bring both alike")
    if shared := set(validation.predictions.patient_ids) & set(main.predictions.patient_ids):
        raise InputError(
            f"{num_of(len(shared), 'patient', 'is')} in {path} and in the predictions too (first: {min(shared)}): "
            "thresholds "
            f"must "
            "come of other patients"
        )
    metrics = {"fold": None, "split_name": validation.split_name}
    return fit_operating_points(validation.predictions, describe_part(validation.predictions, metrics, "validation"))
