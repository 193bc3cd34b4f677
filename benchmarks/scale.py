"""Convert as many images as the whole release has; part of `make bench`.

Tiny images stand behind 112,120 rows, so that only what grows with the number of images counts: table, folds,
records and checks. A quarter of them is converted first, to see whether memory grows with the number.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import Tables
from cxrkeras.phantoms.writing import sample_findings, write_tables

WHOLE = 112_120
DISTINCT = 64  # files that the others are hard links to
SIZE = 32


def build_release(folder: Path, num_images: int) -> None:
    """Write tables in the layout of the release, and a hard link to one of 64 small PNGs for each row."""
    table = sample_findings(num_images, "nih", seed=0)
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(DISTINCT):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number}.png")
    for number, image_id in enumerate(table["image_id"]):
        os.link(folder / f"{number % DISTINCT}.png", images / image_id)
    write_tables(folder, table, [], 16)


def convert(folder: Path) -> None:
    """Read, convert and verify in this process, and print seconds and peak megabytes of each step."""
    from cxrkeras.data.doctor import examine_folder
    from cxrkeras.data.release import read_release
    from cxrkeras.records.verify import verify_records
    from cxrkeras.records.write import write_records

    records = folder.with_name(folder.name + "-records")
    steps = {
        "doctor": lambda: examine_folder(folder),
        "table": lambda: read_release(folder),
        "records": lambda: write_records(read_release(folder), records, size=SIZE),
        "verify": lambda: verify_records(records),
    }
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        # Not getrusage's, which begins with the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        print(name, f"{time.perf_counter() - started:.1f}", f"{peak:.0f}", flush=True)


def measure_scale(tables: Tables) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for num_images in (WHOLE // 4, WHOLE):
            folder = Path(temporary) / str(num_images)
            build_release(folder, num_images)
            command = [sys.executable, "-m", "benchmarks.scale", str(folder)]
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment)
            for line in done.stdout.splitlines():
                rows.append((f"{num_images:,}", *line.split()))
    title = f"steps over many images, stored at {SIZE} px"
    tables.add(title, ["images", "step", "seconds", "peak MB so far"], rows)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
