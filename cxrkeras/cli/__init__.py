"""The commands. Each parses its options and calls one function of the package."""

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from cxrkeras import __version__
from cxrkeras.cli import data, demo, results, training
from cxrkeras.cli.shell import app, console, print_error
from cxrkeras.errors import InputError

__all__ = ["data", "demo", "main", "results", "training"]


def main() -> None:
    """Run the command line: what a person can mend is one sentence and exit code 2, never a traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows a question mark
    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # matplotlib draws a box instead
    try:
        app()
    except InputError as error:
        print_error(str(error))
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without permission
        print_error(f"{error}: nothing that was finished is lost")
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Train, compare and explain multi-label chest X-ray classifiers.

    The way of the data: `phantom` or your own images, `records`, `train`, `gradcam`. Each step leaves files that the
    next one reads. `demo` goes the whole way.
    """
