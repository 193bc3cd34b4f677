"""A page about the labels and the people of records, before anything is trained."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.files import write_text
from cxrkeras.records.manifest import load_index, load_manifest
from cxrkeras.reports import figures
from cxrkeras.reports.figures import spell
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.scoring.evaluation import SEXES, VIEW_NAMES
from cxrkeras.scoring.find_runs import EXPLORATION
from cxrkeras.text import num_of

AGES = np.array([0, 10, 20, 30, 40, 50, 60, 70, 80, 121])
FILMS = np.array([1, 2, 3, 4, 5, 7, 10, 20, 1000])


def count_labels(index: pd.DataFrame) -> pd.DataFrame:
    """A row a label: positives and prevalence in all images, in train_val and in test."""
    table = pd.DataFrame(index=pd.Index(labels.LABELS, name="label"))
    for name, rows in (("all", index), *((split, index[index["split"] == split]) for split in (TRAIN_VAL, TEST))):
        positives = rows[list(labels.LABELS)].sum()
        table[f"{name}_positives"], table[f"{name}_prevalence"] = positives, positives / max(len(rows), 1)
    return table


def count_together(index: pd.DataFrame) -> pd.DataFrame:
    """Images with both labels, int (15, 15); on the diagonal those with the label."""
    hot = index[list(labels.LABELS)]
    return (hot.T @ hot).rename_axis("label")


def correlate_labels(index: pd.DataFrame) -> pd.DataFrame:
    """Pearson correlation of each pair of labels (phi), NaN for a label that is everywhere or nowhere."""
    return index[list(labels.LABELS)].corr().rename_axis("label")


def write_exploration(folder: Path) -> Path:
    """Write `explore/` in a records folder: explore.html, its figures, and each table as CSV; returns the page."""
    manifest, index = load_manifest(folder), load_index(folder)
    people = index.groupby("patient_id")
    kind = "synthetic phantoms, " if manifest.is_synthetic else ""
    counts = {
        split: f"{num_of(len(rows), 'image')} of {num_of(rows['patient_id'].nunique(), 'patient')}"
        for split, rows in index.groupby("split")
    }
    source = f"{folder.name}; {kind}split {manifest.split_name}: " + ", ".join(
        f"{split} {text}" for split, text in reversed(counts.items())
    )
    frequencies, together, correlation = count_labels(index), count_together(index), correlate_labels(index)
    by_split = {split: index[index["split"] == split] for split in (TRAIN_VAL, TEST)}
    shares = frequencies[[f"{TRAIN_VAL}_prevalence", f"{TEST}_prevalence"]].set_axis([TRAIN_VAL, TEST], axis=1)
    rows = [
        [
            spell(label),
            f"{row['all_positives']:,.0f}",
            *(f"{row[f'{split}_prevalence']:.2%}" for split in ("all", TRAIN_VAL, TEST)),
        ]
        for label, row in frequencies.iterrows()
    ]
    given = together.div(np.diag(together).clip(min=1), axis=0)
    np.fill_diagonal(shown := given.to_numpy(copy=True), np.nan)
    given_figure = figures.plot_matrix(
        pd.DataFrame(shown, together.index, together.columns),
        title="Of the images with the label of the row, the share with that of the column",
        source=source,
        text=[
            ["" if i == j else f"{value:.0%}" for j, value in enumerate(row)] for i, row in enumerate(given.to_numpy())
        ],
    )
    array = correlation.to_numpy(copy=True)
    np.fill_diagonal(array, np.nan)
    correlation_figure = figures.plot_matrix(
        pd.DataFrame(array, correlation.index, correlation.columns),
        title="Correlation of labels",
        source=source,
        text=[["" if not np.isfinite(value) else f"{value:.2f}" for value in row] for row in array],
        is_signed=True,
    )
    sections = [
        Section(
            "Label frequencies",
            ["An image has one label or several; No Finding stands alone."],
            pictures=[
                Picture(
                    "frequencies",
                    figures.plot_prevalence(shares, source=source, title="Share of images with each label"),
                    "Where the dots lie apart, scores and thresholds of one part do not carry over to the other.",
                )
            ],
            tables=[Table(["label", "images", "all", "train_val", "test"], rows, source)],
        ),
        Section(
            "Labels that come together",
            pictures=[
                Picture("together", given_figure, "Rows sum to more than 100 % where a label often comes in company.")
            ],
        ),
        Section(
            "Correlation",
            pictures=[
                Picture("correlation", correlation_figure, "Pearson correlation of presence: red together, blue apart.")
            ],
        ),
        Section(
            "Images per patient",
            [
                f"{num_of(people.ngroups, 'patient')} with {num_of(len(index), 'image')}: "
                f"{people.size().median():g} in the median, "
                f"{people.size().max():,} at the most. Images of one patient are no independent cases: folds and "
                "intervals go by patient."
            ],
            pictures=[
                Picture(
                    "images_per_patient",
                    figures.plot_histograms(
                        {split: rows.groupby("patient_id").size().to_numpy() for split, rows in by_split.items()},
                        FILMS,
                        title="Images per patient",
                        x="images of a patient",
                        source=source,
                    ),
                    "Share of patients with so many images.",
                )
            ],
        ),
        Section(
            "Age",
            [f"{num_of(int(index['age'].isna().sum()), 'image', 'has')} no age, or one that cannot be."],
            pictures=[
                Picture(
                    "age",
                    figures.plot_histograms(
                        {split: rows["age"].dropna().to_numpy() for split, rows in by_split.items()},
                        AGES,
                        title="Age at the time of the image",
                        x="years",
                        source=source,
                    ),
                    "Share of images in each band of age.",
                )
            ],
        ),
        Section("Sex and view", tables=[_count_kinds(by_split, source)]),
    ]
    warnings = ["Synthetic phantoms: drawn, not taken of patients."] if manifest.is_synthetic else []
    listed = manifest.num_listed
    lede = [
        f"Source: {source}.",
        f"Labels from {manifest.label_file}; {len(index):,} of its {num_of(listed, 'image', 'is')} here.",
    ]
    out = folder / EXPLORATION
    save_page(Page(f"What is in {folder.name}", lede, warnings, sections), out / f"{EXPLORATION}.html")
    for name, table in (("frequencies", frequencies), ("together", together), ("correlation", correlation)):
        write_text(out / f"{name}.csv", table.to_csv())
    return out / f"{EXPLORATION}.html"


def _count_kinds(by_split: dict[str, pd.DataFrame], source: str) -> Table:
    rows = []
    for column, kinds in (("sex", SEXES | {"": "sex not given"}), ("view", VIEW_NAMES | {"": "view not given"})):
        for value, name in kinds.items():
            counts = [(part[column] == value).sum() for part in by_split.values()]
            if not any(counts):
                continue
            sizes = [max(len(part), 1) for part in by_split.values()]
            rows.append([name, *(f"{n:,} ({n / size:.1%})" for n, size in zip(counts, sizes, strict=True))])
    return Table(["images", *by_split], rows, source)
