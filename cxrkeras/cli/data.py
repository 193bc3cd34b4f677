"""Commands from images to records."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cxrkeras.cli.shell import (
    Blank,
    Ignore,
    Kind,
    Normal,
    Readers,
    Seed,
    Terms,
    Views,
    app,
    console,
    hint_resume_on_interrupt,
    load_tensorflow,
    show_progress,
    split_folders,
)
from cxrkeras.cli.tables import (
    print_datasets,
    print_examination,
    print_labels,
    print_shared_terms,
    print_side_by_side,
    print_sources,
)
from cxrkeras.errors import InputError
from cxrkeras.models.registry import DEFAULT_SIZE
from cxrkeras.records.find_records import RECORDS_ROOT, SKIPPED
from cxrkeras.text import num_of

if TYPE_CHECKING:
    from cxrkeras.data.reading import Reading


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
def datasets() -> None:
    """List the data sets that can be read: size, labels, licence, how one gets them, and the files expected."""
    from cxrkeras.data.readers import READERS

    print_datasets(console, READERS)


@app.command()
def vocabulary(
    first: Annotated[str, typer.Argument(help="A kind of data set, as `cxrkeras datasets` lists them.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    terms: Annotated[str, typer.Option(help="In which terms: nih, common, or a TOML file of your own.")] = "common",
) -> None:
    """Print what two data sets share: the names of each that mean the same, and where that is stated.

    A file of your own has `labels = ["Fluid", ...]`, optionally `no_finding = "..."`, and a table for each kind of data
    set, as `[chexpert]`, with lines `"Pleural Effusion" = "Fluid"`; `[table]` is for a CSV of your own, which is
    otherwise matched by spelling. Names that only nearly mean the same are not mapped, nor is No Finding.
    """
    from cxrkeras.data.readers import READERS
    from cxrkeras.data.vocabulary import load_terms

    loaded = load_terms(terms)
    kinds = list(dict.fromkeys([*(reader.kind for reader in READERS), *loaded.names]))
    if first == second:
        raise InputError(f"name two different kinds of data sets; got {first} twice")
    for kind in (first, second):
        if kind not in loaded.names:
            raise InputError(f"no names of {kind!r} in terms of {loaded.name}; choose from {', '.join(kinds)}")
    print_shared_terms(console, loaded, first, second)


@app.command()
def doctor(
    data: Annotated[
        Optional[list[str]], typer.Argument(help="Data folders, as for `records`; by default data/nih.")
    ] = None,
    open_images: Annotated[bool, typer.Option("--open", help="Decode every image: odd ones, duplicates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    kind: Kind = None,
    views: Views = "frontal",
    blank: Blank = None,
    readers: Readers = None,
    terms: Terms = None,
    ignore: Ignore = "",
    normal: Normal = None,
) -> None:
    """Describe a data folder, or several next to each other. Exit code 1 only for what would make a result wrong."""
    import json

    from cxrkeras.data.doctor import examine_folders
    from cxrkeras.data.reading import Reading

    reading = Reading(
        kind=kind, views=views, blank=blank, readers=readers, terms=terms, ignore=tuple(ignore.split()), normal=normal
    )
    with show_progress() as progress:
        found = examine_folders(split_folders(data), reading, is_opening=open_images, progress=progress)
    if as_json:
        print(json.dumps(found if len(found) > 1 else found[0], indent=1))
    else:
        for of_folder in found:
            print_examination(console, of_folder)
        if len(found) > 1:
            print_side_by_side(console, found)
    if any(of_folder["errors"] for of_folder in found):
        raise typer.Exit(1)


@app.command()
def records(
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="A public data set (`cxrkeras datasets` lists them) or a folder with a CSV of your own, by default "
            "data/nih; several, separated by spaces or each with --data, are joined."
        ),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help="Folder under records/; by default DATA-SIZE, as in nih-224.")
    ] = None,
    size: Annotated[
        Optional[int], typer.Option(help="Side of the stored images in pixels; by default 224, or that of --like.")
    ] = None,
    like: Annotated[
        Optional[str],
        typer.Option(
            help="A run or an adopted network whose size and preparation (crop, grey, window, resize) the images get."
        ),
    ] = None,
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
    overlap: Annotated[
        Optional[str],
        typer.Option(
            help="Patients whom the split lists of joined sets put on two sides: drop their training images, or test "
            "on all their images; an error by default."
        ),
    ] = None,
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
    kind: Kind = None,
    views: Views = "frontal",
    blank: Blank = None,
    readers: Readers = None,
    terms: Terms = None,
    ignore: Ignore = "",
    normal: Normal = None,
) -> None:
    """Convert images to TFRecords, once. An interrupted conversion resumes where it stopped.

    A CSV of your own has the columns image and patient, and either labels (any names, joined by |) or one column per
    label of 1, 0, -1 for uncertain and blank for unknown; split, age, sex and view are optional. Several data sets
    with different labels are joined in terms of one label set.
    """
    from cxrkeras.data.reading import Reading

    reading = Reading(
        kind=kind,
        split_rule=split,
        split_seed=seed,
        namespace=patients,
        views=views,
        blank=blank,
        readers=readers,
        terms=terms,
        ignore=tuple(ignore.split()),
        normal=normal,
    )
    make_records(split_folders(data), name, size, folds, reading, duplicates, overlap, max_skipped, like)


def make_records(
    data: list[Path],
    name: str | None,
    size: int | None,
    folds: int,
    reading: "Reading | None" = None,
    duplicates: str = "error",
    overlap: str | None = None,
    max_skipped: float = 0.01,
    like: str | None = None,
) -> Path:
    from cxrkeras.data.preparation import OWN
    from cxrkeras.data.readers import read_datasets
    from cxrkeras.data.reading import Reading
    from cxrkeras.scoring.run import open_fold

    model = open_fold(like) if like else None
    if model and size not in (None, model.size):
        raise InputError(f"{model.name} takes images of {model.size} px; got {size}", option="size")
    size = size or (model.size if model else DEFAULT_SIZE)
    preparation = model.config.preparation if model else OWN
    suffix = f"-like-{model.folder.resolve().parent.name}" if model and preparation != OWN else ""

    reading = reading or Reading()
    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"name is that of a folder under {RECORDS_ROOT}, without slashes; got {name!r}")
    shown = " and ".join(map(str, data))
    with console.status(f"reading {shown}"):
        dataset = read_datasets(data, reading, overlap)
    counts = dataset.table["split"].value_counts().reindex(["train_val", "test"], fill_value=0)
    console.print(
        f"{shown}: {num_of(len(dataset.table), 'image')} of "
        f"{num_of(dataset.table['patient_id'].nunique(), 'patient')}, labels from "
        f"{dataset.label_file}, split {dataset.split_name} ({counts['train_val']:,} train_val, {counts['test']:,} test)"
        f"{', synthetic phantoms' if dataset.is_synthetic else ''}"
    )
    for note in dataset.notes:
        console.print(f"note: {note}")
    if dataset.kind not in ("nih", "phantoms"):
        print_labels(console, dataset)
    load_tensorflow()
    from cxrkeras.records.folder import open_records
    from cxrkeras.records.write import write_records

    folder = RECORDS_ROOT / (name or f"{'-'.join(path.resolve().name for path in data)}-{size}{suffix}")
    with hint_resume_on_interrupt(), show_progress() as progress:
        summary = write_records(
            dataset,
            folder,
            size=size,
            num_folds=folds,
            seed=reading.split_seed,
            split_rule=reading.split_rule,
            max_skipped=max_skipped,
            duplicates=duplicates,
            preparation=preparation,
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
    if dataset.members:
        print_sources(console, open_records(folder).index)
    return folder


@app.command()
def verify(
    name: Annotated[
        Optional[str], typer.Argument(help="A folder under records/ or a path; by default the newest.")
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(help="The data folders they were made from: compare the fingerprint too."),
    ] = None,
) -> None:
    """Check records against their manifest: checksums, counts, labels, patients and folds. Names what is wrong."""
    from cxrkeras.data.readers import read_again
    from cxrkeras.records.folder import open_records

    opened = open_records(name)
    manifest, dataset = opened.manifest, None
    if data:
        sources = [source.model_dump() for source in manifest.sources]
        if len(sources) == 1:
            sources[0]["namespace"] = manifest.namespace or None
        dataset = read_again(split_folders(data), sources, manifest.overlap)
    load_tensorflow()
    from cxrkeras.records.verify import check_source

    if dataset:
        check_source(opened, dataset)
    with show_progress() as progress:
        opened.verify(progress)
    source = f", made from {' and '.join(map(str, split_folders(data)))} as it is now" if data else ""
    console.print(
        f"verified {opened.folder}: {num_of(manifest.num_records, 'record')} in "
        f"{num_of(len(manifest.shards), 'shard')}, split {manifest.split_name}{source}"
    )
