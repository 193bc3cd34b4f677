"""The commands, in a process of their own or in this one."""

import subprocess
import sys
from dataclasses import dataclass

from typer.testing import CliRunner

from cxrkeras.cli import app
from cxrkeras.errors import InputError


def run_cxrkeras(*arguments, cwd):
    """A command in its own process, which imports nothing beforehand and shows no traceback."""
    command = [sys.executable, "-m", "cxrkeras", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


@dataclass
class Done:
    returncode: int
    stdout: str


def run_here(*arguments):
    """A command in this process, which has TensorFlow already; from the working folder."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        return Done(2, f"{result.output}error: {result.exception}")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.output)
