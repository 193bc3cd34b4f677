"""The whole way in one command."""

from pathlib import Path

from cxrkeras.cli.data import make_records
from cxrkeras.cli.shell import app, console, show_count, show_phases
from cxrkeras.cli.training import train_one
from cxrkeras.records.find_records import RECORDS_ROOT
from cxrkeras.scoring.find_runs import MODEL, TENSORBOARD, predictions_file

DEMO_DATA = Path("data/phantom-demo")
DEMO_RECORDS = "phantom-demo-128"
DEMO_IMAGES, DEMO_PIXELS, DEMO_SIZE = 2400, 256, 128


@app.command()
def demo() -> None:
    """Go the whole way on synthetic phantoms, in under ten minutes on two cores.

    Draw, convert, train, score, explain, report.
    """
    from cxrkeras.config import load_experiment
    from cxrkeras.phantoms.writing import write_phantoms

    console.rule("1 of 5: synthetic phantoms")
    with show_count("drawing phantoms") as progress:
        write_phantoms(DEMO_DATA, num_images=DEMO_IMAGES, size=DEMO_PIXELS, progress=progress)
    console.rule("2 of 5: records")
    make_records(DEMO_DATA, DEMO_RECORDS, DEMO_SIZE, folds=5)
    console.rule("3 of 5: training resnet18")
    folder = train_one(load_experiment("phantom", settings={"data": {"records": DEMO_RECORDS}}), "phantom")
    console.rule("4 of 5: Grad-CAM")
    import pandas as pd

    from cxrkeras.explain.sheet import build_sheets
    from cxrkeras.labels import FINDINGS

    test = pd.read_csv(folder / predictions_file("test"), dtype={"image_id": str})
    truth = test[list(FINDINGS)].to_numpy()
    logits = test[[f"logit_{label}" for label in FINDINGS]].to_numpy()
    # Of the test images with two findings, the one whose less certain finding has the highest score.
    sureness = (logits + 1e9 * (1 - truth)).min(axis=1) - 1e9 * (truth.sum(axis=1) != 2)
    chosen = sureness.argmax()
    image = DEMO_DATA / "images" / test["image_id"][chosen]
    true = [label for label in FINDINGS if test[label][chosen]]
    sheet = build_sheets(folder)(image)
    console.print(f"{image} was drawn with {' and '.join(true)};")
    console.print("of the test images with two findings it is the one whose lower score is the highest")
    console.print(f"saved {sheet.path}")
    console.rule("5 of 5: report")
    from cxrkeras.reports.report import write_report

    with show_phases() as progress:
        report, _ = write_report(folder, progress=progress)
    console.print(f"saved {report}")
    console.rule("done")
    console.print(
        f"images       {DEMO_DATA}\n"
        f"records      {RECORDS_ROOT / DEMO_RECORDS}\n"
        f"network      {folder / MODEL}\n"
        f"predictions  {folder / predictions_file('test')}\n"
        f"curves       {folder / TENSORBOARD}\n"
        f"heat maps    {sheet.path}\n"
        f"report       {report}\n\n"
        "All of it is made of synthetic phantoms: this network knows nothing about patients. Next:\n"
        "  make app\n"
        f"  make gradcam IMG={image} LABEL=all\n"
        "  make localise\n"
        "  make tensorboard\n"
        "  make records DATA=<folder of the NIH release>"
    )
