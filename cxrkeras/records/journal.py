"""The journal of an unfinished conversion: one line for its settings and one per finished shard."""

import json
import os
from pathlib import Path
from typing import Any

import pydantic

from cxrkeras.errors import InputError
from cxrkeras.files import write_text
from cxrkeras.records.manifest import Shard, check_settings

JOURNAL = "journal.jsonl"


class Entry(pydantic.BaseModel):
    """A finished shard; `skipped` and `dropped` are rows of skipped.csv, `digests` those of its images by id."""

    shard: Shard
    digests: dict[str, str]
    skipped: list[dict[str, str]] = []
    dropped: list[dict[str, str]] = []


def read_journal(folder: Path, settings: dict[str, Any]) -> dict[str, Entry]:
    """Read the entries by shard of an interrupted conversion with the same settings; start a journal if none exists."""
    path = folder / JOURNAL
    if not path.exists():
        write_text(path, json.dumps(settings) + "\n")
        return {}
    try:
        head, *lines = path.read_text("utf-8").splitlines()
        found = json.loads(head)
    except ValueError:
        raise InputError(f"{path} is damaged: delete {folder} and run the same command again") from None
    check_settings(folder, found, settings)
    entries, whole = {}, [head]
    for line in lines:
        try:
            content = json.loads(line)
            if "void" in content:  # its shard was about to be rewritten
                entries.pop(content["void"], None)
            else:
                entry = Entry(**content)
                entries[entry.shard.file] = entry
        except (ValueError, TypeError):  # the line that was being written when the conversion was interrupted
            break
        whole.append(line)
    write_text(path, "\n".join(whole) + "\n")
    return entries


def append_to_journal(folder: Path, content: dict[str, Any]) -> None:
    with (folder / JOURNAL).open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        os.fsync(file.fileno())


def delete_journal(folder: Path) -> None:
    (folder / JOURNAL).unlink()
