import numpy as np

from cxrkeras.data.contact_sheet import COLUMNS, plot_contact_sheet
from cxrkeras.labels import LABELS


def test_a_row_a_label_with_boxes_and_the_word_phantom(release):
    figure = plot_contact_sheet(release)
    panels = np.array(figure.axes).reshape(len(LABELS), COLUMNS)
    assert [row[0].get_ylabel() for row in panels] == [label.replace("_", " ") for label in LABELS]
    assert all(panel.images for panel in panels.ravel())
    assert "synthetic phantoms" in figure.get_suptitle()
    boxed = [bool(row[1].patches) for row in panels]
    assert boxed[LABELS.index("Mass")]
    assert not boxed[LABELS.index("Edema")]
    assert not any(row[0].patches for row in panels)
