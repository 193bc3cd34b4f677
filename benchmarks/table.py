"""Alternate timing, and tables that are printed and saved in README.md."""

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROUNDS = 3
README = Path(__file__).with_name("README.md")


def time_in_turn(jobs: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of each job's best round. Each round runs all jobs; the best counts, as other processes only add time."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def with_ratios(rows: dict[str, float], reference: str) -> list[tuple[str, str, str]]:
    """Rows of a name, a value and its ratio to the reference row's."""
    return [(name, f"{value:,.2f}", f"{value / rows[reference]:.2f}") for name, value in rows.items()]


class Tables:
    """Prints tables as they are added, and saves them under a heading of README.md, replacing what is there."""

    def __init__(self, heading: str, command: str) -> None:
        self.heading, self.command, self.blocks = heading, command, []

    def add(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, justify="right" if table.columns else "left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        lines = [" | ".join(row) for row in ([*columns], ["---"] + ["---:"] * (len(columns) - 1), *rows)]
        self.blocks.append(f"{title[0].upper()}{title[1:]}:\n\n" + "\n".join(f"| {line} |" for line in lines))

    def save(self) -> None:
        text = README.read_text() if README.exists() else "# Benchmarks\n"
        text = re.sub(rf"\n## {re.escape(self.heading)}\n.*?(?=\n## |\Z)", "", text, flags=re.DOTALL).rstrip()
        where = f"`{self.command}` on {describe_machine()}."
        README.write_text("\n\n".join([text, f"## {self.heading}", where, *self.blocks]) + "\n")


def describe_machine() -> str:
    """Processor, cores, memory and versions on one line."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ["tensorflow-cpu", "tensorflow", "keras", "pillow", "torch"]
    versions = [f"{name} {number}" for name in packages if (number := _find_version(name))]
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GB; Python {platform.python_version()}, {', '.join(versions)}"


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
