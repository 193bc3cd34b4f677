"""Names of the files in a records folder, and the look-up of such folders."""

from pathlib import Path

from cxrkeras.errors import InputError

RECORDS_ROOT = Path("records")
MANIFEST = "manifest.json"
INDEX = "index.csv"
BOXES = "boxes.csv"
SKIPPED = "skipped.csv"
PATIENTS = "patients.csv"


def find_records(name: str | None) -> Path:
    """Find a records folder by its name under records/ or its path; without a name, the newest."""
    if name is None:
        done = list(RECORDS_ROOT.glob(f"*/{MANIFEST}"))
        if not done:
            raise InputError(f"no records in {RECORDS_ROOT}: make records with `cxrkeras records --data <data folder>`")
        return max(done, key=lambda path: path.stat().st_mtime).parent
    for folder in (RECORDS_ROOT / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    known = sorted(path.parent.name for path in RECORDS_ROOT.glob(f"*/{MANIFEST}"))
    raise InputError(f"no finished records {name!r}; there are {', '.join(known) or 'none'} in {RECORDS_ROOT}")
