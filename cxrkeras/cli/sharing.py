"""Commands that bring networks of others, and give one's own to others."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from cxrkeras.cli.shell import Run, app, console, load_tensorflow, show_progress
from cxrkeras.cli.tables import print_public_networks
from cxrkeras.errors import InputError


@app.command()
def adopt(
    name: Annotated[
        Optional[str],
        typer.Argument(help="A public network, a pack (file.cxr.zip), its address, or hf://owner/name of one."),
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the public networks and what is known of them.")] = (
        False
    ),
    file: Annotated[
        Optional[str], typer.Option(help="The file of a public network, a path or an address; by default its source.")
    ] = None,
    sha256: Annotated[Optional[str], typer.Option(help="The SHA-256 that the file must have.")] = None,
    images: Annotated[
        Optional[Path],
        typer.Option(help="A folder of your own radiographs, on which the check of inputs is fitted (50 or more)."),
    ] = None,
) -> None:
    """Bring a public chest X-ray network, or a pack, as a run: `predict`, `gradcam`, `evaluate` and `app` take it.

    Nothing in its file is run: weights are read by a reader that knows tensors alone. Its crop, grey, window and resize
    are kept with it and obeyed everywhere. `calibrate --records` then turns its outputs into probabilities.
    """
    from cxrkeras.models.public_table import find_public, load_public_networks
    from cxrkeras.scoring.packs import fetch_pack, install_pack, is_pack

    if list_them:
        print_public_networks(console, load_public_networks())
        return
    if not name:
        raise InputError("which network? `cxrkeras adopt --list` lists the public ones; with make NET=")
    if is_pack(name):
        if file:
            raise InputError("a pack is a file itself", option="file")
        with show_progress() as progress:
            folder, is_new = install_pack(fetch_pack(name, sha256, progress), progress)
    else:
        find_public(name)  # an unknown name is reported before TensorFlow is loaded
        load_tensorflow()
        from cxrkeras.reports.card import write_adopted_card
        from cxrkeras.scoring.adoption import adopt_public

        with show_progress() as progress:
            adopted = adopt_public(name, file=file, sha256=sha256, progress=progress)
        for note in adopted.notes:
            console.print(f"note: {note}")
        folder, is_new = adopted.fold.folder, adopted.is_new
        if is_new:
            write_adopted_card(adopted.fold)
    _describe(folder, is_new, images)


def _describe(folder: Path, is_new: bool, images: Path | None) -> None:
    """Say what was adopted, fit its check, and say what can be done with it."""
    from cxrkeras.data.preparation import OWN, describe_preparation
    from cxrkeras.scoring.run import Fold
    from cxrkeras.scoring.run_files import MODEL_CARD, OOD_CHECK, PUBLISHED

    fold = Fold(folder)
    adopted = fold.config.adopted
    assert adopted is not None
    if images:
        load_tensorflow()
        from cxrkeras.reports.card import write_adopted_card
        from cxrkeras.scoring.ood_images import fit_on_images

        with show_progress() as progress:
            console.print(fit_on_images(fold, images, progress))
        if adopted.run is None:  # the card of a pack is its author's
            write_adopted_card(fold)
    console.print(
        f"{'adopted' if is_new else 'already there:'} {fold.name}, {adopted.network}, {adopted.size} px, "
        f"{len(fold.labels)} labels, licence {adopted.licence}\n"
        f"trained on {fold.trained_on}; {adopted.split}"
    )
    if fold.config.preparation != OWN:
        console.print(f"images are prepared as it was trained: {describe_preparation(fold.config.preparation)}")
    if fold.operating_points.thresholds.fitted_on.part == PUBLISHED:
        console.print(
            f"its numbers are not calibrated: cxrkeras calibrate --run {fold.name} --records ... fits them on images "
            "of your own"
        )
    if not (folder / OOD_CHECK).is_file():
        console.print(
            f"nothing checks its inputs: cxrkeras adopt {fold.name} --images FOLDER fits a check on radiographs of "
            "your own"
        )
    console.print(
        f"run folder: {folder}, with {MODEL_CARD}; next: cxrkeras predict FILES --run {fold.name}, "
        f"cxrkeras app --run {fold.name}"
    )


@app.command()
def pack(
    run: Run = None,
    out: Annotated[Optional[Path], typer.Option(help="The file to write; by default RUN.cxr.zip here.")] = None,
    licence: Annotated[
        str, typer.Option(help="Under which others may use the network: an SPDX name, as Apache-2.0.")
    ] = "unknown",
    patients: Annotated[
        Optional[str],
        typer.Option(
            help="hashed: add the salted hashes of the patients it was trained on, so that others can check whether "
            "they evaluate it on some of them. Whoever has a list of patient ids can test which of them are in it."
        ),
    ] = None,
) -> None:
    """Write a network with all that it needs to answer into one file, which `cxrkeras adopt` takes anywhere.

    It has the network, labels, preparation, calibration, thresholds, check of inputs, model card, and checksums of all;
    no predictions and no ids.
    """
    from cxrkeras.scoring.run import open_fold

    fold = open_fold(run, with_network=True)
    load_tensorflow()
    from cxrkeras.reports.sharing import pack_run

    with show_progress() as progress:
        written = pack_run(fold, out, licence=licence, patients=patients, progress=progress)
    for note in written.notes:
        console.print(f"note: {note}")
    console.print(
        f"packed {fold.name} as {written.path}, {written.path.stat().st_size / 1e6:.1f} MB, SHA-256 {written.sha256}\n"
        f"others adopt it with: cxrkeras adopt {written.path.name}"
    )


@app.command()
def publish(
    run: Run = None,
    repo: Annotated[Optional[str], typer.Option(help="The repository, owner/name; made if it is missing.")] = None,
    licence: Annotated[
        str, typer.Option(help="Under which others may use the network: an SPDX name, as Apache-2.0.")
    ] = "unknown",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send without asking.")] = False,
) -> None:
    """Publish a network on Hugging Face: its pack, and its model card with scores, split and licence.

    No predictions, no images and no ids are sent. Log in before, with `hf auth login` or HF_TOKEN.
    """
    import tempfile

    from cxrkeras.scoring.run import open_fold

    if not repo:
        raise InputError("where to? Name a repository, owner/name; with make REPO=", option="repo")
    fold = open_fold(run, with_network=True)
    load_tensorflow()
    from cxrkeras.reports.sharing import prepare_publication, send

    with tempfile.TemporaryDirectory() as folder:
        with show_progress() as progress:
            publication = prepare_publication(fold, repo, Path(folder), licence=licence, progress=progress)
        for note in publication.pack.notes:
            console.print(f"note: {note}")
        console.print(publication.readme)
        console.print(f"to {repo} on Hugging Face go:")
        for name, size in publication.sizes.items():
            console.print(f"  {name}, {size / 1e6:,.2f} MB")
        if dry_run:
            console.print("nothing was sent: --dry-run")
            return
        if not yes and not typer.confirm("send it?"):
            console.print("nothing was sent")
            raise typer.Exit(1)
        with console.status("sending"):
            address = send(publication, is_private=private)
    console.print(f"published: {address}\nothers adopt it with: cxrkeras adopt hf://{repo}")
