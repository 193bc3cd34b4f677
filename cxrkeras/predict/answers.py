"""Answers as plain values: for programs, for the page, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from cxrkeras import labels
from cxrkeras.errors import InputError
from cxrkeras.text import clean

if TYPE_CHECKING:  # a missing file should be told before TensorFlow is loaded
    from cxrkeras.predict.predictor import Answer

LARGEST_PICTURE = 2048  # pixels of the longer side of an image beside its result
LONGEST_CELL = 1000  # characters of a text
PNG_SIDE = 512  # of the PNG of a heat map over its image, unless another is asked for
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # how cells begin that a spreadsheet would compute


class FileTooLarge(InputError):
    """A file of more bytes than a server takes."""


def put_apart(rows: Iterable[dict]) -> list[dict]:
    """Rows of labels with those of findings first: that nothing was found is no finding, and has no place."""
    return sorted(rows, key=lambda row: row["label"] not in labels.FINDINGS)


def describe_answer(answer: Answer, thresholds: dict[str, float | None]) -> dict:
    """An answer as JSON values: calibrated probabilities, the most probable label first."""
    ranked = sorted(labels.LABELS, key=answer.probs.get, reverse=True)
    return {
        "labels": [
            {
                "label": label,
                "probability": round(answer.probs[label], 6),
                "threshold": thresholds[label],
                "is_found": label in answer.found,
            }
            for label in ranked
        ],
        "warnings": list(answer.warnings),
        "width": answer.width,
        "height": answer.height,
    }


def describe_problem(error: InputError) -> dict:
    """What is wrong with one file, as problem details."""
    too_large = isinstance(error, FileTooLarge)
    title, status = ("Too large", 413) if too_large else ("Not a readable image", 422)
    return {"problem": {"title": title, "status": status, "detail": str(error)}}


def tabulate_results(results: Iterable[dict], model: str) -> pd.DataFrame:
    """A row for each result: file, problem, warnings, found, no_finding, probabilities, thresholds, model.

    `found` has the findings over their thresholds, `no_finding` whether that label is over its own.

    Texts that a spreadsheet would take for a formula are led by an apostrophe.
    """
    rows = []
    for result in results:
        row = {"file": neutralise(result["name"]), "model": neutralise(model)}
        if "problem" in result:
            row["problem"] = neutralise(result["problem"]["detail"])
        else:
            row["warnings"] = neutralise("; ".join(result["warnings"]))
            found = {one["label"] for one in result["labels"] if one["is_found"]}
            findings = [one["label"] for one in result["labels"] if one["label"] in found & set(labels.FINDINGS)]
            row["found"] = neutralise("|".join(findings))
            row["no_finding"] = "yes" if labels.NO_FINDING in found else "no"
            for one in result["labels"]:
                row[f"prob_{one['label']}"], row[f"threshold_{one['label']}"] = one["probability"], one["threshold"]
        rows.append(row)
    columns = ["file", "problem", "warnings", "found", "no_finding"]
    columns += [f"{kind}_{label}" for kind in ("prob", "threshold") for label in labels.FINDINGS]
    columns += [f"{kind}_{labels.NO_FINDING}" for kind in ("prob", "threshold")]
    return pd.DataFrame(rows).reindex(columns=[*columns, "model"])


def encode_csv(table: pd.DataFrame) -> str:
    """A table as CSV with a byte order mark, by which spreadsheets know UTF-8."""
    return "\ufeff" + table.to_csv(index=False)


def neutralise(text: str) -> str:
    """The text of a cell that no spreadsheet computes."""
    text = clean(text, LONGEST_CELL)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
