"""A contact sheet: examples of every finding on one page, to look at before anything is trained."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrkeras import labels
from cxrkeras.data.dataset import Release
from cxrkeras.data.images import load_image
from cxrkeras.errors import InputError
from cxrkeras.text import num_of, plain

COLUMNS = 6
PIXELS = 160


def plot_contact_sheet(release: Release) -> Figure:
    """Draw a row for each label: the images with the fewest other findings, boxes of the label in every second one."""
    table = release.table.assign(num=release.table[list(labels.FINDINGS)].sum(axis=1))
    boxes = release.boxes.groupby(["image_id", "label"])
    kind = "synthetic phantoms" if release.is_synthetic else f"split {release.split_name}"
    figure = Figure(figsize=(1.6 * COLUMNS, 1.72 * len(labels.LABELS)), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    figure.supxlabel("Boxes are drawn in every second column; diffuse findings have none.", fontsize=8)
    figure.suptitle(
        f"{plain(release.folder.name)}: {num_of(len(table), 'image')} of "
        f"{num_of(table['patient_id'].nunique(), 'patient')} ({kind})",
        fontsize=11,
    )
    for panels, label in zip(figure.subplots(len(labels.LABELS), COLUMNS), labels.LABELS, strict=True):
        examples = table[table[label] == 1].sort_values("num", kind="stable")["path"].index[:COLUMNS]
        for panel in panels:
            panel.set(xticks=[], yticks=[])
            panel.set_frame_on(False)
        panels[0].set_ylabel(label.replace("_", " "), fontsize=9)
        for column, (panel, row) in enumerate(zip(panels, table.loc[examples].itertuples(), strict=False)):
            try:
                panel.imshow(load_image(Path(row.path).read_bytes(), PIXELS), cmap="gray", vmin=0, vmax=255)
            except (InputError, OSError):
                continue  # the records will list it among the skipped
            if column % 2 and (row.image_id, label) in boxes.groups:
                sides = boxes.get_group((row.image_id, label))[["x", "y", "width", "height"]].to_numpy(np.float64)
                for x, y, width, height in sides * PIXELS:
                    panel.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="gold", linewidth=1))
    return figure
