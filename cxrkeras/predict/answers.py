"""Answers as plain values: for programs, for the page, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.text import clean

if TYPE_CHECKING:  # a missing file should be reported before TensorFlow is loaded
    from cxrkeras.predict.predictor import Answer

LARGEST_PICTURE = 2048  # pixels of the longer side of an image next to its result
LONGEST_CELL = 1000  # characters of a text
PNG_SIDE = 512  # of the PNG of a heat map over its image, unless another is asked for
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # how cells begin that a spreadsheet would compute


class FileTooLarge(InputError):
    """A file of more bytes than a server takes."""


def describe_answer(answer: Answer, thresholds: dict[str, float | None]) -> dict:
    """An answer as JSON values: calibrated probabilities, the most probable label first."""
    ranked = sorted(answer.probs, key=lambda label: answer.probs[label], reverse=True)
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


def tabulate_results(results: Iterable[dict], labels: LabelSet, model: str) -> pd.DataFrame:
    """A row for each result: file, problem, warnings, found, no_finding, probabilities, thresholds, model.

    `found` has the findings above their thresholds, `no_finding` whether the label that means no finding is
    above its own; the column is left out where the label set has none. Texts that a spreadsheet would evaluate as a
    formula are prefixed with an apostrophe.
    """
    rows = []
    for result in results:
        row = {"file": neutralise(result["name"]), "model": neutralise(model)}
        if "problem" in result:
            row["problem"] = neutralise(result["problem"]["detail"])
        else:
            row["warnings"] = neutralise("; ".join(result["warnings"]))
            found = [entry["label"] for entry in result["labels"] if entry["is_found"]]
            row["found"] = neutralise("|".join(label for label in found if label != labels.no_finding))
            row["no_finding"] = "yes" if labels.no_finding in found else "no"
            for entry in result["labels"]:
                label = entry["label"]
                row[f"prob_{label}"], row[f"threshold_{label}"] = entry["probability"], entry["threshold"]
        rows.append(row)
    columns = ["file", "problem", "warnings", "found"]
    columns += [f"{kind}_{label}" for kind in ("prob", "threshold") for label in labels.findings]
    if labels.no_finding:
        columns.insert(4, "no_finding")
        columns += [f"{kind}_{labels.no_finding}" for kind in ("prob", "threshold")]
    return pd.DataFrame(rows).reindex(columns=[*columns, "model"])


def encode_csv(table: pd.DataFrame) -> str:
    """A table as CSV with a byte order mark, by which spreadsheets know UTF-8."""
    return "\ufeff" + table.to_csv(index=False)


def neutralise(text: str) -> str:
    """The text of a cell, written so that no spreadsheet computes it."""
    text = clean(text, LONGEST_CELL)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
