import numpy as np

from cxrkeras.data.contact_sheet import COLUMNS, plot_contact_sheet
from cxrkeras.labels import NIH


def test_one_row_per_label_with_boxes_and_the_word_phantom(dataset):
    figure = plot_contact_sheet(dataset)
    panels = np.array(figure.axes).reshape(len(NIH.names), COLUMNS)
    assert [row[0].get_ylabel() for row in panels] == [label.replace("_", " ") for label in NIH.names]
    assert all(panel.images for panel in panels.ravel())
    assert "synthetic phantoms" in figure.get_suptitle()
    boxed = [bool(row[1].patches) for row in panels]
    assert boxed[NIH.index("Mass")]
    assert not boxed[NIH.index("Edema")]
    assert not any(row[0].patches for row in panels)
