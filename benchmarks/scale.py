"""Convert as many images as the whole NIH release has; one of the measurements of `make bench`.

The 112,120 images are tiny, so that only what grows with their number counts: table, folds, records and checks. A
quarter of as many is converted first, to see how memory grows with the number.
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
SIZE = 32


def build_release(folder: Path, num_images: int) -> None:
    """Write tables in the layout of the NIH release, and a small PNG for each row, no two of them alike."""
    table = sample_findings(num_images, "nih", seed=0)
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id in table["image_id"]:
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(images / image_id)
    write_tables(folder, table, [], 16)


def convert(folder: Path) -> None:
    """Examine, read, convert and verify in this process; prints seconds and peak megabytes after each step."""
    from cxrkeras.data.doctor import examine_folder
    from cxrkeras.data.readers import read_dataset
    from cxrkeras.records.folder import open_records
    from cxrkeras.records.write import write_records

    records = folder.with_name(folder.name + "-records")
    steps = {
        "doctor": lambda: examine_folder(folder),
        "table": lambda: read_dataset(folder),
        "records": lambda: write_records(read_dataset(folder), records, size=SIZE),
        "verify": lambda: open_records(records).verify(),
    }
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        # Not that of getrusage, which starts with the peak of the parent process.
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
    title = f"steps on many images, stored at {SIZE} px"
    tables.add(title, ["images", "step", "seconds", "peak MB so far"], rows)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
