"""A page about the labels and the patients of records, before anything is trained."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.dataset import TEST, TRAIN_VAL, count_values
from cxrkeras.files import write_text
from cxrkeras.labels import PRESENT, LabelSet, display_name, known_truth
from cxrkeras.records.folder import Records
from cxrkeras.reports import figures
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.reports.sections import PAGE_LABELS, build_pages
from cxrkeras.scoring.evaluation import SEXES, VIEW_NAMES
from cxrkeras.scoring.run_files import EXPLORATION
from cxrkeras.text import num_of

MATRIX_LABELS = 25  # in a matrix whose cells can be read
AGES = np.array([0, 10, 20, 30, 40, 50, 60, 70, 80, 121])
IMAGES_PER_PATIENT = np.array([1, 2, 3, 4, 5, 7, 10, 20, 1000])


def count_labels(index: pd.DataFrame, labels: LabelSet) -> pd.DataFrame:
    """A row per label: in all images, in train_val and in test the positives, the known and uncertain ones, and the
    prevalence among the known ones."""
    table = pd.DataFrame(index=pd.Index(labels.names, name="label"))
    for name, rows in (("all", index), *((split, index[index["split"] == split]) for split in (TRAIN_VAL, TEST))):
        counts = count_values(rows, labels)
        known = counts["present"] + counts["absent"]
        table[f"{name}_positives"], table[f"{name}_known"] = counts["present"], known
        table[f"{name}_uncertain"] = counts["uncertain"]
        table[f"{name}_prevalence"] = counts["present"] / known.where(known > 0)
    return table


def count_together(index: pd.DataFrame, labels: LabelSet) -> pd.DataFrame:
    """Images with both labels, int (L, L); on the diagonal those with the label."""
    is_present = (index[list(labels)] == PRESENT).astype(int)
    return (is_present.T @ is_present).rename_axis("label")


def correlate_labels(index: pd.DataFrame, labels: LabelSet) -> pd.DataFrame:
    """Pearson correlation of each pair of labels (phi) over the images where both are known, NaN for a label that is
    everywhere or nowhere."""
    truth = pd.DataFrame(known_truth(index[list(labels)].to_numpy()), columns=list(labels))
    return truth.corr(min_periods=2).rename_axis("label")


def write_exploration(records: Records) -> Path:
    """Write `explore/` in a records folder: explore.html, its figures, and each table as CSV; returns the page."""
    manifest, index, labels = records.manifest, records.index, records.labels
    source = _describe_source(records)
    by_split = {split: index[index["split"] == split] for split in (TRAIN_VAL, TEST)}
    tables = {
        "frequencies": count_labels(index, labels),
        "together": count_together(index, labels),
        "correlation": correlate_labels(index, labels),
    }
    sections = [
        _build_frequencies(tables["frequencies"], len(index), source),
        *_build_pairs(tables, source),
        _build_patients(index, by_split, source),
        _build_ages(index, by_split, source),
        Section("Sex and view", tables=[_count_kinds(by_split, source)]),
    ]
    warnings = ["Synthetic phantoms, not patient images."] if manifest.is_synthetic else []
    lede = [
        f"Source: {source}.",
        f"Labels from {manifest.label_files}; {len(index):,} of its {num_of(manifest.num_listed, 'image', 'is')} here.",
    ]
    out = records.folder / EXPLORATION
    save_page(Page(f"What is in {records.name}", lede, warnings, sections), out / f"{EXPLORATION}.html")
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv())
    return out / f"{EXPLORATION}.html"


def _describe_source(records: Records) -> str:
    kind = "synthetic phantoms, " if records.manifest.is_synthetic else ""
    counts = [
        f"{split} {num_of(len(rows), 'image')} of {num_of(rows['patient_id'].nunique(), 'patient')}"
        for split, rows in records.index.groupby("split")
    ]
    return f"{records.name}; {kind}split {records.manifest.split_name}: {', '.join(reversed(counts))}"


def _build_frequencies(table: pd.DataFrame, num_images: int, source: str) -> Section:
    if len(table) > PAGE_LABELS:
        table = table.sort_values("all_positives", ascending=False, kind="stable")
    splits = ("all", TRAIN_VAL, TEST)
    is_all_known = (table["all_known"] == num_images).all()
    rows = [
        [
            display_name(str(label)),
            f"{row['all_positives']:,.0f}",
            "" if is_all_known else f"{row['all_known']:,.0f}",
            "" if is_all_known else f"{row['all_uncertain']:,.0f}",
            *("none known" if np.isnan(row[f"{split}_prevalence"]) else f"{row[f'{split}_prevalence']:.2%}"
              for split in splits),
        ]
        for label, row in table.iterrows()
    ]  # fmt: skip
    columns = ["label", "positives", "known", "uncertain", *splits]
    shares = table[[f"{TRAIN_VAL}_prevalence", f"{TEST}_prevalence"]].set_axis([TRAIN_VAL, TEST], axis=1)
    title = "Share of images with each label"
    pictures = build_pages(
        "frequencies",
        list(shares.index),
        lambda names: figures.plot_prevalence(shares.loc[list(names)], source=source, title=title),
        "Where the dots lie apart, scores and thresholds of one set do not carry over to the other.",
    )
    counts = Table(columns, rows, source).without_empty()
    text = "Shares are of the images where a label is known."
    return Section("Label frequencies", [text], pictures=pictures, tables=[counts])


def _build_pairs(tables: dict[str, pd.DataFrame], source: str) -> list[Section]:
    """Co-occurrence and correlation of the most frequent labels."""
    positives = tables["frequencies"]["all_positives"]
    names = list(positives.index)
    texts = []
    if len(names) > MATRIX_LABELS:
        names = list(positives.sort_values(ascending=False, kind="stable").index[:MATRIX_LABELS])
        texts.append(f"The {MATRIX_LABELS} most frequent of {len(positives)} labels; the tables as CSV have all.")
    if len(names) < 2:
        return []
    together = tables["together"].loc[names, names]
    given = together.div(np.diag(together).clip(min=1), axis=0)
    given = _without_diagonal(given)
    given_figure = figures.plot_matrix(
        given,
        title="Of the images with the label of the row, the share with that of the column",
        source=source,
        text=[[f"{value:.0%}" if np.isfinite(value) else "" for value in row] for row in given.to_numpy()],
    )
    correlation = _without_diagonal(tables["correlation"].loc[names, names])
    correlation_figure = figures.plot_matrix(
        correlation,
        title="Correlation of labels",
        source=source,
        text=[[f"{value:.2f}" if np.isfinite(value) else "" for value in row] for row in correlation.to_numpy()],
        is_signed=True,
    )
    caption = "Rows sum to more than 100 % where a label often comes with others."
    return [
        Section("Co-occurrence", texts, pictures=[Picture("together", given_figure, caption)]),
        Section(
            "Correlation",
            pictures=[
                Picture("correlation", correlation_figure, "Pearson correlation of presence: red together, blue apart.")
            ],
        ),
    ]


def _without_diagonal(table: pd.DataFrame) -> pd.DataFrame:
    array = table.to_numpy(float, copy=True)
    np.fill_diagonal(array, np.nan)
    return pd.DataFrame(array, table.index, table.columns)


def _build_patients(index: pd.DataFrame, by_split: dict[str, pd.DataFrame], source: str) -> Section:
    per_patient = index.groupby("patient_id").size()
    text = (
        f"{num_of(len(per_patient), 'patient')} with {num_of(len(index), 'image')}: {per_patient.median():g} in the "
        f"median, {per_patient.max():,} at most. Images of one patient are correlated: folds and intervals go by "
        "patient."
    )
    figure = figures.plot_histograms(
        {split: rows.groupby("patient_id").size().to_numpy() for split, rows in by_split.items()},
        IMAGES_PER_PATIENT,
        title="Images per patient",
        x="images of a patient",
        source=source,
    )
    picture = Picture("images_per_patient", figure, "Share of patients with so many images.")
    return Section("Images per patient", [text], pictures=[picture])


def _build_ages(index: pd.DataFrame, by_split: dict[str, pd.DataFrame], source: str) -> Section:
    text = f"{num_of(int(index['age'].isna().sum()), 'image', 'has')} a missing or impossible age."
    if index["age"].isna().all():
        return Section("Age", [text])
    figure = figures.plot_histograms(
        {split: rows["age"].dropna().to_numpy() for split, rows in by_split.items()},
        AGES,
        title="Age at the time of the image",
        x="years",
        source=source,
    )
    return Section("Age", [text], pictures=[Picture("age", figure, "Share of images in each band of age.")])


def _count_kinds(by_split: dict[str, pd.DataFrame], source: str) -> Table:
    rows = []
    for column, kinds in (("sex", SEXES | {"": "sex not given"}), ("view", VIEW_NAMES | {"": "view not given"})):
        for value, name in kinds.items():
            counts = [(rows_of_split[column] == value).sum() for rows_of_split in by_split.values()]
            if not any(counts):
                continue
            sizes = [max(len(rows_of_split), 1) for rows_of_split in by_split.values()]
            rows.append([name, *(f"{n:,} ({n / size:.1%})" for n, size in zip(counts, sizes, strict=True))])
    return Table(["images", *by_split], rows, source)
