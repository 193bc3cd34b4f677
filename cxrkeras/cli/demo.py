"""End to end in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxrkeras.cli.data import make_records
from cxrkeras.cli.shell import app, console, show_progress
from cxrkeras.cli.training import train_and_print
from cxrkeras.records.find_records import RECORDS_ROOT
from cxrkeras.scoring.run_files import MODEL, TENSORBOARD, TEST_SET, predictions_file

if TYPE_CHECKING:
    from cxrkeras.scoring.run import Fold

DEMO_DATA = Path("data/phantom-demo")
DEMO_RECORDS = "phantom-demo-128"
DEMO_IMAGES, DEMO_PIXELS, DEMO_SIZE = 2400, 256, 128


@app.command()
def demo() -> None:
    """Run end to end on synthetic phantoms, in under ten minutes on two cores.

    Draw, convert, train, score, explain, report.
    """
    from cxrkeras.config import load_experiment
    from cxrkeras.phantoms.writing import write_phantoms

    console.rule("1 of 5: synthetic phantoms")
    with show_progress() as progress:
        write_phantoms(DEMO_DATA, num_images=DEMO_IMAGES, size=DEMO_PIXELS, progress=progress)
    console.rule("2 of 5: records")
    make_records([DEMO_DATA], DEMO_RECORDS, DEMO_SIZE, folds=5)
    console.rule("3 of 5: training resnet18")
    fold = train_and_print(load_experiment("phantom", settings={"data": {"records": DEMO_RECORDS}}), "phantom")
    console.rule("4 of 5: Grad-CAM")
    from cxrkeras.explain.sheet import SheetWriter

    name, findings = choose_example(fold)
    image = DEMO_DATA / "images" / name
    sheet = SheetWriter(fold).write(image)
    console.print(f"{image} was drawn with {' and '.join(findings)};")
    console.print("it is the test image with two findings whose less confident finding scores highest")
    console.print(f"saved {sheet.paths[0]}")
    console.rule("5 of 5: report")
    from cxrkeras.reports.report import write_report

    with show_progress() as progress:
        report, _ = write_report(fold, progress=progress)
    console.print(f"saved {report}")
    console.rule("done")
    console.print(
        f"images       {DEMO_DATA}\n"
        f"records      {RECORDS_ROOT / DEMO_RECORDS}\n"
        f"network      {fold.folder / MODEL}\n"
        f"predictions  {fold.folder / predictions_file(TEST_SET)}\n"
        f"curves       {fold.folder / TENSORBOARD}\n"
        f"heat maps    {sheet.paths[0]}\n"
        f"report       {report}\n\n"
        "All of it comes from synthetic phantoms: this network knows nothing about patients. Next:\n"
        "  make app\n"
        f"  make gradcam IMG={image} LABEL=all\n"
        "  make localise\n"
        "  make tensorboard\n"
        "  make records DATA=<folder of the NIH release, or of images with a CSV of your own>"
    )


def choose_example(fold: Fold) -> tuple[str, list[str]]:
    """Of the test images with two findings, that whose less certain one has the highest score; and its findings."""
    import numpy as np

    test, columns = fold.predictions[TEST_SET], fold.labels.finding_columns
    is_present, logits = test.truth[:, columns] == 1, test.logits[:, columns]
    lower = np.where(is_present, logits, np.inf).min(axis=1)
    chosen = np.where(is_present.sum(axis=1) == 2, lower, -np.inf).argmax()
    return test.image_ids[chosen], [fold.labels.findings[k] for k in np.flatnonzero(is_present[chosen])]
