"""The commands. Each parses its options and calls one function of the package."""

import io
import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from cxrkeras import __version__
from cxrkeras.cli import data, demo, results, sharing, training
from cxrkeras.cli.shell import app, console, print_error
from cxrkeras.errors import InputError

__all__ = ["data", "demo", "main", "results", "sharing", "training"]


def main() -> None:
    """Run the command line: what a user can fix is one sentence and exit code 2, never a traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows a question mark
    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # matplotlib draws a box instead
    try:
        app()
    except InputError as error:
        hint = f" (the option --{error.option}; with make {error.option.upper()}=)" if error.option else ""
        print_error(f"{error}{hint}")
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without permission
        print_error(f"{error}: what was finished is kept")
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Train, compare, explain and serve multi-label chest X-ray classifiers.

    The data flow: `phantom` or your own images, `records`, `train`, `gradcam`. Each step leaves files that the next one
    reads. `demo` runs all of them.
    """
