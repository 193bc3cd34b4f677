"""Commands from images to records."""

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cxrkeras.cli.shell import Seed, app, console, load_tensorflow, say_how_to_go_on, show_count, show_phases
from cxrkeras.cli.tables import print_examination
from cxrkeras.errors import InputError
from cxrkeras.records.find_records import RECORDS_ROOT, SKIPPED, find_records
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
    from cxrkeras.data.release import read_release
    from cxrkeras.phantoms.writing import write_phantoms

    with show_count("drawing phantoms") as progress:
        is_new = write_phantoms(data, num_images=n, size=size, prevalence=prevalence, seed=seed, progress=progress)
    sheet = data / "contact_sheet.png"
    if is_new:
        plot_contact_sheet(read_release(data)).savefig(sheet)
    console.print(f"{'drew' if is_new else 'already there:'} {n:,} synthetic phantoms in {data}")
    console.print(f"to look at: {sheet}")
    console.print(f"next: make records DATA={data} SIZE={min(size, 128)}")


@app.command()
def data(
    data: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("data/nih"),
    parts: Annotated[str, typer.Option(help="Which of the twelve archives: 1, 1,3 or 1..12.")] = "1",
    parallel: Annotated[int, typer.Option(min=1, max=12, help="Archives fetched at a time.")] = 1,
) -> None:
    """Fetch the NIH ChestX-ray14 release: labels, split lists and archives. Goes on where it was interrupted.

    The first of the twelve archives is 2 GB with 4,999 images, enough to try everything; all are about 42 GB.
    """
    from rich.progress import DownloadColumn, TransferSpeedColumn

    from cxrkeras.data.fetch_nih import fetch_release, parse_parts

    wanted = parse_parts(parts)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with say_how_to_go_on(), Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], completed=done, total=total or None)

        fetch_release(data, wanted, parallel=parallel, progress=show, say=lambda text: bar.console.print(text))
    console.print(f"{data} has parts {parts}; next: make records DATA={data}")


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="A data folder, as for `records`.")] = Path("data/nih"),
    open_images: Annotated[bool, typer.Option("--open", help="Decode every image: odd ones, duplicates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a data folder is. Exit code 1 only for what would make a result wrong."""
    import json

    from cxrkeras.data.doctor import examine_folder

    with show_count("opening images") as progress:
        found = examine_folder(data, is_opening=open_images, progress=progress)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_examination(console, found)
    if found["errors"]:
        raise typer.Exit(1)


@app.command()
def records(
    data: Annotated[
        Path, typer.Option(help="The NIH release, or a folder with a CSV of image, patient and labels.")
    ] = Path("data/nih"),
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
            "so that nobody moves when the data grow; or grouped, so that folds are as equal as can be."
        ),
    ] = "hashed",
    duplicates: Annotated[
        str,
        typer.Option(help="The same picture under two patients on two sides of a split: error, or drop one side's."),
    ] = "error",
    patients: Annotated[
        Optional[str],
        typer.Option(
            help="Whose patients a CSV of one's own has: nih if its images are NIH's, so that they are known as the "
            "same people; by default the folder's own."
        ),
    ] = None,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable images that is not an error yet.")
    ] = 0.01,
) -> None:
    """Convert images to TFRecords, once. An interrupted conversion goes on where it was."""
    make_records(data, name, size, folds, seed, split, duplicates, patients, max_skipped)


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
) -> Path:
    from cxrkeras.data.release import read_release

    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"NAME is that of a folder under {RECORDS_ROOT}, without slashes; got {name!r}")
    with console.status(f"reading {data}"):
        release = read_release(data, split_rule=split, split_seed=seed, namespace=patients)
    counts = release.table["split"].value_counts()
    console.print(
        f"{data}: {num_of(len(release.table), 'image')} of "
        f"{num_of(release.table['patient_id'].nunique(), 'patient')}, labels from "
        f"{release.label_file}, split {release.split_name} ({counts['train_val']:,} train_val, {counts['test']:,} test)"
        f"{', synthetic phantoms' if release.is_synthetic else ''}"
    )
    for note in release.notes:
        console.print(f"note: {note}")
    load_tensorflow()
    from cxrkeras.records.write import write_records

    folder = RECORDS_ROOT / (name or f"{data.resolve().name}-{size}")
    with say_how_to_go_on(), show_phases() as progress:
        summary = write_records(
            release,
            folder,
            size=size,
            num_folds=folds,
            seed=seed,
            split_rule=split,
            max_skipped=max_skipped,
            duplicates=duplicates,
            progress=lambda done, total: progress("converting", done, total),
            hashing=lambda done, total: progress("hashing patients", done, total),
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
        Optional[Path], typer.Option(help="The data folder they were made of: compare its fingerprint too.")
    ] = None,
) -> None:
    """Check records against their manifest: checksums, counts, labels, patients and folds. Names what is wrong."""
    from cxrkeras.data.folds import parse_split_name
    from cxrkeras.data.release import read_release
    from cxrkeras.records.manifest import load_manifest

    folder = find_records(name)
    release = None
    if data:
        made = load_manifest(folder)
        rule, split_seed = parse_split_name(made.split_name) or (made.fold_rule, made.fold_seed)
        patients = None if made.is_synthetic else made.namespace or None
        release = read_release(data, split_rule=rule, split_seed=split_seed, namespace=patients)
    load_tensorflow()
    from cxrkeras.records.verify import verify_records

    with show_count("verifying") as progress:
        manifest = verify_records(folder, progress, release=release)
    count = sum(shard.count for shard in manifest.shards)
    source = f", made of {data} as it is now" if data else ""
    console.print(
        f"verified {folder}: {num_of(count, 'record')} in {num_of(len(manifest.shards), 'shard')}, split "
        f"{manifest.split_name}{source}"
    )
