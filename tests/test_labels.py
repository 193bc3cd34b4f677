import numpy as np
import pytest

from cxrkeras.errors import InputError
from cxrkeras.labels import FINDINGS, LABELS, NO_FINDING, encode_labels, parse_labels


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


@pytest.mark.parametrize("text", ["", "effusion", "Effusion|", "Effusion, Mass", "Lung Opacity", "No Finding|Mass"])
def test_what_is_no_label_text_is_refused(text):
    with pytest.raises(InputError):
        parse_labels(text)
