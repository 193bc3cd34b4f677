"""Commands from images to records."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from cxrkeras.cli.shell import (
    Ignore,
    Normal,
    Seed,
    app,
    console,
    hint_resume_on_interrupt,
    load_tensorflow,
    show_progress,
)
from cxrkeras.cli.tables import print_examination, print_labels
from cxrkeras.errors import InputError
from cxrkeras.records.find_records import RECORDS_ROOT, SKIPPED
from cxrkeras.text import num_of


@app.command()
def phantom(
    data: Annotated[Path, typer.Option(help="The folder to write.")] = Path("data/phantom"),
    n: Annotated[int, typer.Option("--n", help="How many images.")] = 1200,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 256,
    prevalence: Annotated[
        str, typer.Option(help="balanced: 15 % of each finding; nih: as rare as in the NIH release.")
    ] = "balanced",
    seed: Seed = 0,
) -> None:
    """Draw synthetic chest radiographs in the layout of the NIH release, and a contact sheet of them."""
    from cxrkeras.data.contact_sheet import plot_contact_sheet
    from cxrkeras.data.readers import read_dataset
    from cxrkeras.phantoms.writing import write_phantoms

    with show_progress() as progress:
        is_new = write_phantoms(data, num_images=n, size=size, prevalence=prevalence, seed=seed, progress=progress)
    sheet = data / "contact_sheet.png"
    if is_new:
        plot_contact_sheet(read_dataset(data)).savefig(sheet)
    console.print(f"{'drew' if is_new else 'already there:'} {n:,} synthetic phantoms in {data}")
    console.print(f"to look at: {sheet}")
    console.print(f"next: make records DATA={data} SIZE={min(size, 128)}")


@app.command()
def data(
    data: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("data/nih"),
    parts: Annotated[str, typer.Option(help="Which of the twelve archives: 1, 1,3 or 1..12.")] = "1",
    parallel: Annotated[int, typer.Option(min=1, max=12, help="Archives fetched at a time.")] = 1,
) -> None:
    """Fetch the NIH ChestX-ray14 release: labels, split lists and archives. Resumes where it was interrupted.

    The first of the twelve archives is 2 GB with 4,999 images, enough to try everything; all are about 42 GB.
    """
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    from cxrkeras.data.fetch_nih import fetch_release, parse_parts

    wanted = parse_parts(parts)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with hint_resume_on_interrupt(), show_progress(*columns, is_parallel=True) as progress:
        fetch_release(data, wanted, parallel=parallel, progress=progress)
    console.print(f"{data} has parts {parts}; next: make records DATA={data}")


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="A data folder, as for `records`.")] = Path("data/nih"),
    open_images: Annotated[bool, typer.Option("--open", help="Decode every image: odd ones, duplicates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ignore: Ignore = "",
    normal: Normal = None,
) -> None:
    """Describe a data folder. Exit code 1 only for what would make a result wrong."""
    import json

    from cxrkeras.data.doctor import examine_folder

    with show_progress() as progress:
        found = examine_folder(data, is_opening=open_images, ignore=ignore.split(), normal=normal, progress=progress)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_examination(console, found)
    if found["errors"]:
        raise typer.Exit(1)


@app.command()
def records(
    data: Annotated[Path, typer.Option(help="The NIH release, or a folder with a CSV of your own.")] = Path("data/nih"),
    name: Annotated[
        Optional[str], typer.Option(help="Folder under records/; by default DATA-SIZE, as in nih-224.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the stored images in pixels.")] = 224,
    folds: Annotated[int, typer.Option(help="Cross-validation folds, by patient.")] = 5,
    seed: Seed = 0,
    split: Annotated[
        str,
        typer.Option(
            help="How patients go to folds, and to the test set where the data have none: hashed, each by its own id, "
            "so that no patient changes sides when the data grow; or grouped, so that folds are as equal as can be."
        ),
    ] = "hashed",
    duplicates: Annotated[
        str,
        typer.Option(help="The same picture under two patients on two sides of a split: error, or drop one side's."),
    ] = "error",
    patients: Annotated[
        Optional[str],
        typer.Option(
            help="Whose patients a CSV of your own has: nih if its images are NIH's, so that they count as the same "
            "patients; by default the folder's own."
        ),
    ] = None,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable images that is tolerated.")
    ] = 0.01,
    ignore: Ignore = "",
    normal: Normal = None,
) -> None:
    """Convert images to TFRecords, once. An interrupted conversion resumes where it stopped.

    A CSV of your own has the columns image and patient, and either labels (any names, joined by |) or one column per
    label of 1, 0, -1 for uncertain and blank for unknown; split, age, sex and view are optional.
    """
    make_records(data, name, size, folds, seed, split, duplicates, patients, max_skipped, ignore, normal)


def make_records(
    data: Path,
    name: str | None,
    size: int,
    folds: int,
    seed: int = 0,
    split: str = "hashed",
    duplicates: str = "error",
    patients: str | None = None,
    max_skipped: float = 0.01,
    ignore: str = "",
    normal: str | None = None,
) -> Path:
    from cxrkeras.data.readers import read_dataset

    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"name is that of a folder under {RECORDS_ROOT}, without slashes; got {name!r}")
    with console.status(f"reading {data}"):
        dataset = read_dataset(
            data, split_rule=split, split_seed=seed, namespace=patients, ignore=ignore.split(), normal=normal
        )
    counts = dataset.table["split"].value_counts()
    console.print(
        f"{data}: {num_of(len(dataset.table), 'image')} of "
        f"{num_of(dataset.table['patient_id'].nunique(), 'patient')}, labels from "
        f"{dataset.label_file}, split {dataset.split_name} ({counts['train_val']:,} train_val, {counts['test']:,} test)"
        f"{', synthetic phantoms' if dataset.is_synthetic else ''}"
    )
    for note in dataset.notes:
        console.print(f"note: {note}")
    if dataset.kind == "table":
        print_labels(console, dataset)
    load_tensorflow()
    from cxrkeras.records.write import write_records

    folder = RECORDS_ROOT / (name or f"{data.resolve().name}-{size}")
    with hint_resume_on_interrupt(), show_progress() as progress:
        summary = write_records(
            dataset,
            folder,
            size=size,
            num_folds=folds,
            seed=seed,
            split_rule=split,
            max_skipped=max_skipped,
            duplicates=duplicates,
            progress=progress,
        )
    console.print(
        f"{'wrote' if summary.is_new else 'already there:'} {num_of(summary.num_images, 'record')} of {size} px "
        f"in {folder}"
    )
    if summary.num_dropped:
        console.print(
            f"left out {num_of(summary.num_dropped, 'image')} that another patient has on another side of a split"
        )
    if unread := len(summary.skipped) - summary.num_dropped:
        console.print(f"skipped {num_of(unread, 'image')} that cannot be read")
    for row in summary.skipped.head(5).itertuples():
        console.print(f"  {row.path}: {row.reason}")
    if len(summary.skipped):
        console.print(f"  all are listed in {folder / SKIPPED}")
    return folder


@app.command()
def verify(
    name: Annotated[
        Optional[str], typer.Argument(help="A folder under records/ or a path; by default the newest.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option(help="The data folder they were made from: compare its fingerprint too.")
    ] = None,
) -> None:
    """Check records against their manifest: checksums, counts, labels, patients and folds. Names what is wrong."""
    from cxrkeras.data.folds import parse_split_name
    from cxrkeras.data.readers import read_dataset
    from cxrkeras.records.folder import open_records

    opened = open_records(name)
    manifest, dataset = opened.manifest, None
    if data:
        rule, split_seed = parse_split_name(manifest.split_name) or (manifest.fold_rule, manifest.fold_seed)
        patients = None if manifest.is_synthetic else manifest.namespace or None
        settings: dict[str, Any] = manifest.sources[0].settings
        dataset = read_dataset(data, split_rule=rule, split_seed=split_seed, namespace=patients, **settings)
    load_tensorflow()
    from cxrkeras.records.verify import check_source

    if dataset:
        check_source(opened, dataset)
    with show_progress() as progress:
        opened.verify(progress)
    source = f", made from {data} as it is now" if data else ""
    console.print(
        f"verified {opened.folder}: {num_of(manifest.num_records, 'record')} in "
        f"{num_of(len(manifest.shards), 'shard')}, split {manifest.split_name}{source}"
    )
