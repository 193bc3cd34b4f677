"""Commands that score, explain and apply networks."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from cxrkeras.cli.shell import Ignore, Normal, Records, Run, Seed, app, console, load_tensorflow, show_progress
from cxrkeras.cli.tables import (
    print_comparison,
    print_evaluation,
    print_localisation,
    print_published,
    print_run,
    print_runs,
    print_scores,
    print_thresholds,
)
from cxrkeras.errors import InputError
from cxrkeras.files import make_folder, write_text
from cxrkeras.text import clean, format_share, num_of


def _end(failed: int, total: int, what: str) -> None:
    """Exit with 1 if some inputs failed, and with 2 and a sentence if all did."""
    if failed == total:
        raise InputError(f"none of {num_of(total, 'file')} {what}")
    if failed:
        raise typer.Exit(1)


@app.command()
def runs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """List all finished runs, the newest first: network, records, date, mean AUCs, size, what they started from."""
    import json

    from cxrkeras.scoring.run_files import RUNS_ROOT
    from cxrkeras.scoring.run_list import list_runs

    with console.status("reading runs"):
        found = list_runs()
    if as_json:
        print(json.dumps([run.dump() for run in found], indent=1))
        return
    if not found:
        console.print(f"no finished run in {RUNS_ROOT}: train one with `cxrkeras demo` or `cxrkeras train --model ...`")
        return
    print_runs(console, found)


@app.command()
def info(run: Annotated[str, typer.Argument(help="A run or one of its folds; by default the newest.")] = "") -> None:
    """Describe a run on one page: network, data, training, scores, thresholds, and which files its folds have."""
    from cxrkeras.scoring.find_runs import find_fold
    from cxrkeras.scoring.run import open_run
    from cxrkeras.scoring.run_files import ADOPTED

    opened = open_run(run) if run else open_run(find_fold(None))
    print_run(console, opened)
    for fold in opened.folds:
        if fold.kind == ADOPTED:
            print_published(console, fold)
        else:
            print_scores(console, fold)


@app.command()
def gradcam(
    images: Annotated[
        Optional[list[Path]], typer.Argument(help="PNG, JPEG or DICOM files of any size, or folders of them.")
    ] = None,
    run: Run = None,
    label: Annotated[
        Optional[str], typer.Option(help="One of the labels, or all; by default the four most probable findings.")
    ] = None,
) -> None:
    """Show where the network looked: heat maps over an X-ray, saved as PNG in the run folder.

    Each map is scaled to its own maximum. Exit code 1 if some of the files cannot be explained, 2 if all of them.
    """
    if not images:
        raise InputError("which image? Name PNG, JPEG or DICOM files, or folders; with make IMG=")
    from cxrkeras.predict.batch import list_files
    from cxrkeras.scoring.run import open_fold

    fold = open_fold(run, with_network=True)
    paths = list_files(images)
    load_tensorflow()
    from cxrkeras.explain.sheet import SheetWriter, check_label

    check_label(label, fold.labels)
    console.print(f"explaining with {fold.folder}")
    writer = SheetWriter(fold)
    skipped = 0
    with show_progress() as progress:
        advance = progress.start("explaining", len(paths))
        for path in paths:
            try:
                sheet = writer.write(path, label)
            except InputError as error:
                skipped += 1
                console.print(f"skipped {error}")
                continue
            finally:
                advance()
            shares = ", ".join(f"{name} {format_share(sheet.probs[name])}" for name in sheet.shown)
            console.print(f"{clean(str(path))}: {shares}")
            for warning in sheet.warnings:
                console.print(f"  {warning}")
            for saved in sheet.paths:
                console.print(f"  saved {saved}")
    _end(skipped, len(paths), "can be explained")


@app.command()
def calibrate(
    run: Run = None,
    records: Annotated[
        Optional[str],
        typer.Option(help="For an adopted network: records of images of your own; their test set is left out."),
    ] = None,
    method: Annotated[str, typer.Option(help="platt, temperature or isotonic, label by label.")] = "platt",
    sensitivity: Annotated[
        Optional[float],
        typer.Option(help="Keep this share of positives, as 0.9; by default Youden's J chooses the threshold."),
    ] = None,
) -> None:
    """Fit probabilities and thresholds again, on validation alone. Training does it with the defaults.

    An adopted network has no validation images: it is fitted on --records, and no longer evaluated on their patients.

    Saved as `calibration.json` and `thresholds.json` in the folder of the fold; reports and heat maps use them.
    """
    from cxrkeras.scoring.operating_points import refit
    from cxrkeras.scoring.run import open_fold

    fold = open_fold(run)
    if records:
        from cxrkeras.records.folder import open_records

        opened = open_records(records)
        load_tensorflow()
        from cxrkeras.reports.card import write_adopted_card
        from cxrkeras.scoring.calibrate_adopted import calibrate_on

        with show_progress() as progress:
            points, notes = calibrate_on(fold, opened, method=method, sensitivity=sensitivity, progress=progress)
        write_adopted_card(fold)
        for note in notes:
            console.print(f"note: {note}")
    else:
        points = refit(fold, method=method, sensitivity=sensitivity)
    print_thresholds(console, points)
    outdated = "" if records else f". Existing reports are out of date: make report RUN={fold.folder}"
    console.print(f"saved in {fold.folder}{outdated}")


@app.command()
def report(run: Run = None) -> None:
    """Write a page about one fold: scores with intervals, curves, decisions, calibration, groups, mistakes.

    The page, `report.html`, opens without a network; next to it are its figures as PNG, all scores as CSV, and a model
    card. Intervals are of 1,000 bootstrap replicates over patients.
    """
    from cxrkeras.scoring.run import open_fold

    fold = open_fold(run)
    load_tensorflow()
    from cxrkeras.reports.report import write_report

    console.print(f"reporting on {fold.folder}")
    with show_progress() as progress:
        path, notes = write_report(fold, progress=progress)
    for note in notes:
        console.print(f"note: {note}")
    console.print(f"report: {path}")


@app.command()
def compare(
    runs: Annotated[
        Optional[list[str]], typer.Argument(help="Runs, single folds of runs, or folders of their evaluations.")
    ] = None,
    with_published: Annotated[
        bool, typer.Option("--with-published", help="Show the original's eleven columns too, marked as published.")
    ] = False,
) -> None:
    """Compare runs: AUCs over folds, ranked on validation; AUC by epoch; paired tests on the same test images.

    Evaluations on other data, `<run>/fold<k>/evaluations/...`, stand in a table of their own and not in the ranking;
    given alone, they may be of runs that were trained on different splits.
    """
    if not runs:
        raise InputError('which runs? Name folders under experiments/runs; with make RUNS="a b c"')
    from cxrkeras.reports.compare import compare_evaluations, write_comparison
    from cxrkeras.scoring.evaluations import is_evaluation, open_evaluation
    from cxrkeras.scoring.run import open_run

    evaluations = [open_evaluation(name) for name in runs if is_evaluation(name)]
    opened = [open_run(run) for run in runs if not is_evaluation(run)]
    if not opened:
        console.print(f"comparison: {compare_evaluations(evaluations)}")
        return
    with show_progress() as progress:
        comparison = write_comparison(opened, evaluations=evaluations, with_published=with_published, progress=progress)
    print_comparison(console, comparison)
    console.print(f"comparison: {comparison.path}")


@app.command()
def ensemble(
    runs: Annotated[Optional[list[str]], typer.Argument(help="Runs, with all their folds, or single folds.")] = None,
    average: Annotated[
        Optional[str],
        typer.Option(help="What is averaged of runs of one fold: logits (the default) or probabilities."),
    ] = None,
) -> None:
    """Average folds or runs into an ensemble, a run like any other: own scores, thresholds and report.

    Runs of one fold share their validation images, on which calibration and thresholds of their mean are fitted. Of
    different folds the calibrated probabilities are averaged, and neither can be verified.
    """
    if not runs:
        raise InputError('which runs? Name folders under experiments/runs; with make RUNS="a b"')
    from cxrkeras.scoring.ensemble import build_ensemble
    from cxrkeras.scoring.run import open_run

    members = [fold for run in runs for fold in open_run(run).folds]
    with show_progress() as progress:
        built = build_ensemble(members, average=average, progress=progress)
    print_scores(console, built)
    console.print(f"members: {', '.join(member.name for member in members)}")
    console.print(f"run folder: {built.folder}; next: make report RUN={built.folder}")


@app.command()
def evaluate(
    run: Run = None,
    records: Records = None,
    split: Annotated[
        Optional[str],
        typer.Option(help="all, test or train_val; by default test where the data came with a split, else all."),
    ] = None,
    truth: Annotated[
        Optional[Path],
        typer.Option(
            help="A CSV with another truth for the same images, as readers' labels: agreement, AUC against each."
        ),
    ] = None,
    recalibrate: Annotated[
        float,
        typer.Option(help="Fit calibration and thresholds on this share of the patients, and score the others."),
    ] = 0.0,
    allow: Annotated[
        Optional[str],
        typer.Option(help="unknown-patients: evaluate although it is not known whom the network was trained on."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """External validation: score a run on records that it was not trained on, with its own thresholds.

    Writes a page on scores with intervals, drift of calibration and decisions, images unlike those of the training,
    and groups; next to it predictions, scores and drift as CSV and JSON. The run's own files stay as they are.
    """
    from cxrkeras.records.folder import open_records
    from cxrkeras.scoring.run import open_fold

    fold, opened = open_fold(run), open_records(records)
    load_tensorflow()
    from cxrkeras.reports.evaluation_page import evaluate_externally
    from cxrkeras.scoring.external_validation import Choice

    choice = Choice(split=split, truth=truth, recalibrate=recalibrate, allow=allow, seed=seed)
    console.print(f"evaluating {fold.folder} on {opened.folder}")
    with show_progress() as progress:
        written = evaluate_externally(fold, opened, choice, progress=progress)
    for note in written.notes:
        console.print(f"note: {note}")
    print_evaluation(console, written.evaluation, written.split_name)
    console.print(f"evaluation: {written.path}")


@app.command()
def explore(records: Records = None) -> None:
    """Write a page about the labels and the patients of records: frequencies, co-occurrence, ages, views."""
    from cxrkeras.records.folder import open_records
    from cxrkeras.reports.explore import write_exploration

    opened = open_records(records)
    with console.status("drawing"):
        path = write_exploration(opened)
    console.print(f"exploration: {path}")


@app.command()
def localise(
    run: Run = None,
    sample: Annotated[int, typer.Option(help="Boxed findings for Score-CAM, which is slow; 0 leaves it out.")] = 20,
    channels: Annotated[int, typer.Option(help="Channels of the features for Score-CAM, at most.")] = 64,
    seed: Seed = 0,
) -> None:
    """Score heat maps against the true boxes of the test set, next to random and centred control boxes."""
    from cxrkeras.scoring.run import open_fold

    fold = open_fold(run, with_network=True)
    load_tensorflow()
    from cxrkeras.reports.localise import localise as score_maps

    console.print(f"localising with {fold.folder}")
    with show_progress() as progress:
        result = score_maps(fold, sample=sample, channels=channels, seed=seed, progress=progress)
    print_localisation(console, result.scores)
    console.print(f"localisation: {result.path}")


@app.command()
def score(
    predictions: Annotated[
        Optional[Path], typer.Argument(help="A CSV with an image column and a column per label.")
    ] = None,
    labels: Annotated[
        Path, typer.Option(help="The label file of the release, or a CSV of image, patient and labels.")
    ] = Path("data/nih/Data_Entry_2017_v2020.csv"),
    validation: Annotated[
        Optional[Path], typer.Option(help="Predictions of validation images, for calibration and thresholds.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the page; by default next to the predictions.")] = None,
    ignore: Ignore = "",
    normal: Normal = None,
) -> None:
    """Score external predictions as our own: the same tables, intervals and page.

    Columns may be called `Label`, `prob_Label`, `Label_pred` or `logit_Label`, in any order, for all labels or some.
    """
    from cxrkeras.reports.external_report import score_file

    if predictions is None:
        raise InputError(
            "which predictions? Name a CSV with an image column and a column per label; with make PREDICTIONS="
        )
    if not predictions.is_file():
        raise InputError(f"no predictions file {predictions}")
    folder = out or predictions.with_name(f"{predictions.stem}-report")
    with show_progress() as progress:
        scored = score_file(
            predictions, labels, validation, folder, ignore=ignore.split(), normal=normal, progress=progress
        )
    for note in scored.notes:
        console.print(f"note: {note}")
    print_evaluation(console, scored.evaluation, scored.split_name)
    console.print(f"report: {scored.path}")


@app.command()
def predict(
    files: Annotated[Optional[list[Path]], typer.Argument(help="PNG, JPEG or DICOM files, or folders of them.")] = None,
    run: Run = None,
    csv: Annotated[Optional[Path], typer.Option(help="Write all probabilities and thresholds to a CSV.")] = None,
) -> None:
    """Print what a network finds in images: calibrated probabilities, and the labels above their thresholds.

    Exit code 1 if some of the files cannot be read, 2 if none can; the CSV has all of them.
    """
    if not files:
        raise InputError("which images? Name files or folders; with make FILES=")
    from cxrkeras.predict.answers import describe_answer, describe_problem, encode_csv, tabulate_results
    from cxrkeras.predict.batch import answer_files, list_files
    from cxrkeras.scoring.run import open_fold

    if csv and (csv.is_dir() or not csv.name):
        raise InputError(f"--csv is a file to write; got the folder {csv}")
    paths, fold = list_files(files), open_fold(run, with_network=True)
    if csv:
        make_folder(csv.parent)
    load_tensorflow()
    from cxrkeras.predict.limits import list_limits
    from cxrkeras.predict.predictor import Predictor

    predictor = Predictor(fold)
    facts = predictor.facts
    console.print(f"{facts.run}, trained on {facts.trained_on}; thresholds by {facts.rule}")
    for limit in list_limits(facts):
        console.print(f"  note: {limit}")
    results, unread = [], 0
    with show_progress() as progress:
        for path, answer in answer_files(predictor, paths, progress):
            if isinstance(answer, InputError):
                results.append({"name": str(path)} | describe_problem(answer))
                unread += 1
                console.print(f"skipped {clean(str(path))}: {answer}")
                continue
            results.append({"name": str(path)} | describe_answer(answer, facts.thresholds))
            above = {label: f"{label} {format_share(answer.probs[label])}" for label in answer.found}
            nothing = above.pop(facts.labels.no_finding or "", "")
            found = ", ".join(above.values()) or "no finding above its threshold"
            console.print(f"{clean(str(path))}: {found}{f'; {nothing}' if nothing else ''}")
            for warning in answer.warnings:
                console.print(f"  warning: {warning}")
    if csv:
        write_text(csv, encode_csv(tabulate_results(results, facts.labels, facts.run)))
        console.print(f"saved {csv}")
    _end(unread, len(paths), "is an image that can be read")


@app.command("app")
def serve_app(
    run: Run = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8050,
    max_file: Annotated[float, typer.Option(min=0.01, max=2000, help="Megabytes per file.")] = 25,
    max_files: Annotated[int, typer.Option(min=1, help="Files per request.")] = 64,
    max_request: Annotated[float, typer.Option(min=0.01, max=20_000, help="Megabytes per request.")] = 100,
    max_pixels: Annotated[float, typer.Option(min=0.01, max=1000, help="Megapixels per image.")] = 80,
    max_in_flight: Annotated[int, typer.Option(min=1, max=256, help="Requests answered at once.")] = 32,
) -> None:
    """Open a page on 127.0.0.1 for looking at images with a network; programs use it too, see `/api/v1/docs`.

    Uploads stay in memory until they are answered, and nothing of them is kept.
    """
    from cxrkeras.predict.memory import share_memory_pools
    from cxrkeras.scoring.run import open_fold

    fold = open_fold(run, with_network=True)
    share_memory_pools()
    load_tensorflow()
    from cxrkeras.app.server import Limits, create_app, make_server
    from cxrkeras.predict.predictor import Predictor

    limits = Limits(
        file_bytes=int(max_file * 2**20),
        files=max_files,
        request_bytes=int(max_request * 2**20),
        pixels=int(max_pixels * 1e6),
        in_flight=max_in_flight,
    )
    with console.status("loading the network"):
        server = make_server(create_app(Predictor(fold), limits), "127.0.0.1", port)
    console.print(f"serving {fold.folder} on http://127.0.0.1:{port}, Ctrl-C stops it")
    server.run()
