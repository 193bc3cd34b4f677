import numpy as np
import pytest

from cxrkeras.errors import InputError
from cxrkeras.labels import FINDINGS, LABELS, NO_FINDING, encode_labels, find_label, parse_labels, suggest_label


def test_order_is_alphabetical_with_no_finding_last():
    assert len(LABELS) == 15
    assert list(FINDINGS) == sorted(FINDINGS)
    assert (*FINDINGS, NO_FINDING) == LABELS


def test_parse_and_encode_are_inverses():
    rng = np.random.default_rng(0)
    for _ in range(100):
        hot = np.append(rng.random(14) < 0.3, False).astype(np.uint8)
        hot[14] = not hot.any()
        assert np.array_equal(parse_labels(encode_labels(hot)), hot)


@pytest.mark.parametrize("text", ["", "Pleural Effusion", "Effusion|", "Effusion, Mass", "Opacity", "No Finding|Mass"])
def test_what_is_no_label_text_is_refused(text):
    with pytest.raises(InputError):
        parse_labels(text)


@pytest.mark.parametrize(
    ("given", "label"),
    [("mass", "Mass"), (" Mass", "Mass"), ("Pleural Thickening", "Pleural_Thickening"), ("no-finding", "No Finding"),
     ("PleuralThickening", "Pleural_Thickening"), ("NO_FINDING", "No Finding"),
     ("pleural\u2013thickening", "Pleural_Thickening"),
     ("Pleural Effusion", None), ("Lung Opacity", None), ("Effusion?", None), ("", None)],
)  # fmt: skip
def test_spellings_of_a_label(given, label):
    assert find_label(given) == label


def test_the_nearest_label_is_suggested():
    assert suggest_label("Pleural Effusion") == "did you mean Effusion? "
    assert suggest_label("Pnuemonia") == "did you mean Pneumonia? "
    assert suggest_label("xyz") == ""
