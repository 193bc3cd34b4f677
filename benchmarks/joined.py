"""Three data sets joined, a million rows in all: read, converted, verified and read for an epoch. `make bench-joined`.

Every image is distinct noise of 32 px, so that only what grows with their number counts. A quarter as many is done
first, to see how memory grows. The files are deleted afterwards.
"""

import os
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.table import Tables
from cxrkeras.data.chexpert_labels import CHEXPERT

SIZE = 32
SHARES = {"nih": 0.3, "chexpert": 0.4, "padchest": 0.3}
LARGEST = 1_000_000


def build_sets(folder: Path, num_images: int) -> None:
    """Write the label files of the three sets and their images; patients have eight images each, as in NIH's."""
    for name, share in SHARES.items():
        names = {"nih": name_nih, "chexpert": name_chexpert, "padchest": name_padchest}[name](
            folder / name, int(num_images * share)
        )
        with ProcessPoolExecutor() as pool:
            starts = range(0, len(names), 10_000)
            list(pool.map(write_images, [folder / name] * len(starts), [names[k : k + 10_000] for k in starts], starts))


def write_images(folder: Path, names: list[str], seed: int) -> None:
    rng = np.random.default_rng([seed, zlib.crc32(folder.name.encode())])
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), np.uint8)).save(path, "PNG", compress_level=0)


def name_nih(folder: Path, count: int) -> list[str]:
    number = np.arange(count)
    names = [f"{k // 8 + 1:08d}_{k % 8:03d}.png" for k in number]
    folder.mkdir(parents=True)
    labels = np.where(number % 3 == 0, "Effusion|Mass", np.where(number % 3 == 1, "Pneumonia", "No Finding"))
    pd.DataFrame(
        {
            "Image Index": names,
            "Finding Labels": labels,
            "Follow-up #": number % 8,
            "Patient ID": number // 8 + 1,
            "Patient Age": 20 + number % 70,
            "Patient Sex": np.where(number % 2, "F", "M"),
            "View Position": np.where(number % 2, "PA", "AP"),
        }
    ).to_csv(folder / "Data_Entry_2017_v2020.csv", index=False)
    return [f"images/{name}" for name in names]


def name_chexpert(folder: Path, count: int) -> list[str]:
    number = np.arange(count)
    names = [f"train/patient{k // 8 + 1:06d}/study{k % 8 + 1}/view1_frontal.jpg" for k in number]
    folder.mkdir(parents=True)
    table = pd.DataFrame({"Path": ["CheXpert-v1.0-small/" + name for name in names], "Sex": "Female", "Age": 60})
    table["Frontal/Lateral"], table["AP/PA"] = "Frontal", "AP"
    values = np.array(["", "1.0", "0.0", "-1.0"])[np.random.default_rng(0).integers(0, 4, (count, len(CHEXPERT)))]
    table[list(CHEXPERT)] = values
    table.to_csv(folder / "train.csv", index=False)
    return names


def name_padchest(folder: Path, count: int) -> list[str]:
    number = np.arange(count)
    names = [f"{k % 50}/image{k}.png" for k in number]
    folder.mkdir(parents=True)
    pd.DataFrame(
        {
            "ImageID": [name.rpartition("/")[2] for name in names],
            "StudyDate_DICOM": "20140915",
            "PatientID": number // 8,
            "PatientBirth": 1950,
            "PatientSex_DICOM": "M",
            "Projection": "PA",
            "MethodLabel": "Physician",
            "Labels": np.where(number % 2, "['pleural effusion', 'nodule']", "['normal']"),
        }
    ).to_csv(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", index=False)
    return names


def run_steps(folder: Path) -> None:
    """Read, convert, verify and read one epoch in this process; prints seconds and peak megabytes after each step."""
    from cxrkeras.data.readers import read_datasets
    from cxrkeras.data.reading import Reading
    from cxrkeras.records.batches import Targets
    from cxrkeras.records.folder import open_records
    from cxrkeras.records.write import write_records

    found = {}

    def read() -> None:
        found["data"] = read_datasets([folder / name for name in SHARES], Reading(terms="common"))

    def convert() -> None:
        write_records(found.pop("data"), folder / "records", size=SIZE)

    def epoch() -> None:
        records = open_records(folder / "records")
        table = np.array([[np.nan, np.nan, 0, 1]] * len(records.labels), np.float32)
        targets = Targets(np.arange(len(records.labels)), table)
        for _ in records.training_batches(0, targets, batch_size=256, seed=0, epoch=0):
            pass

    steps = {"tables": read, "records": convert, "verify": lambda: open_records(folder / "records").verify()}
    for name, step in (steps | {"one epoch of batches": epoch}).items():
        started = time.perf_counter()
        step()
        status = Path("/proc/self/status").read_text()  # not that of getrusage, which starts with the parent's peak
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        print(name, f"{time.perf_counter() - started:.1f}", f"{peak:.0f}", sep="\t", flush=True)


def main() -> None:
    tables, rows = Tables("Three data sets joined", "make bench-joined"), []
    for num_images in (LARGEST // 4, LARGEST):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "sets"
            started = time.perf_counter()
            build_sets(folder, num_images)
            print(f"wrote {num_images:,} images in {time.perf_counter() - started:.0f} s", flush=True)
            command = [sys.executable, "-m", "benchmarks.joined", str(folder)]
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment)
            rows += [(f"{num_images:,}", *line.split("\t")) for line in done.stdout.splitlines()]
    tables.add(f"three sets joined, stored at {SIZE} px", ["images", "step", "seconds", "peak MB so far"], rows)
    tables.save()


if __name__ == "__main__":
    run_steps(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
