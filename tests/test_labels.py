import ast
import re
from pathlib import Path

import numpy as np
import pytest

import cxrkeras
from cxrkeras.errors import InputError
from cxrkeras.labels import (
    NIH,
    NOT_KNOWN,
    RESERVED,
    UNCERTAIN,
    LabelSet,
    encode_values,
    file_name,
    find_no_finding,
    known_truth,
    parse_values,
)

PACKAGE = Path(cxrkeras.__file__).parent
# Only the label sets themselves, the readers of data sets and the phantoms may name labels of a data set.
READERS = (
    "labels.py", "data/nih_tables.py", "data/nih_readers.py", "data/fetch_nih.py", "data/chexpert_labels.py",
    "data/siim.py", "data/vindr.py", "phantoms/",
)  # fmt: skip


def test_order_is_alphabetical_with_no_finding_last():
    assert len(NIH) == 15
    assert list(NIH.findings) == sorted(NIH.findings)
    assert (*NIH.findings, NIH.no_finding) == NIH.names
    assert NIH.finding_columns.tolist() == list(range(14))


def test_parse_and_encode_are_inverses():
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = np.append(rng.random(14) < 0.3, False).astype(np.int8)
        values[14] = not values.any()
        assert np.array_equal(NIH.parse(NIH.encode(values)), values)


@pytest.mark.parametrize("text", ["", "Pleural Effusion", "Effusion|", "Effusion, Mass", "Opacity", "No Finding|Mass"])
def test_invalid_label_texts_are_refused(text):
    with pytest.raises(InputError):
        NIH.parse(text)


@pytest.mark.parametrize(
    ("given", "label"),
    [("mass", "Mass"), (" Mass", "Mass"), ("Pleural Thickening", "Pleural_Thickening"), ("no-finding", "No Finding"),
     ("PleuralThickening", "Pleural_Thickening"), ("NO_FINDING", "No Finding"),
     ("pleural\u2013thickening", "Pleural_Thickening"),
     ("Pleural Effusion", None), ("Lung Opacity", None), ("Effusion?", None), ("", None)],
)  # fmt: skip
def test_spellings_of_a_label(given, label):
    assert NIH.find(given) == label


def test_the_nearest_label_is_suggested():
    assert NIH.suggest("Pleural Effusion") == "did you mean Effusion? "
    assert NIH.suggest("Pnuemonia") == "did you mean Pneumonia? "
    assert NIH.suggest("xyz") == ""
    with pytest.raises(InputError, match="unknown label 'Efusion'; did you mean Effusion"):
        NIH.require("Efusion")


@pytest.mark.parametrize("name", [*RESERVED, "Age", "logit_Mass", "a|b", "a\tb", "\x1b[2J", " a", "", "_", "a" * 101])
def test_names_that_tables_cannot_hold_are_refused(name):
    with pytest.raises(InputError, match="label"):
        LabelSet((name, "Cough"))


@pytest.mark.parametrize("names", [("Mass", "mass"), ("A B", "A_B"), ("A/B", "A?B"), (), tuple(map(str, range(501)))])
def test_sets_whose_labels_cannot_be_distinguished_are_refused(names):
    with pytest.raises(InputError):
        LabelSet(names)


def test_a_set_needs_a_finding_and_knows_the_label_that_means_none():
    assert LabelSet(("a", "b")).findings == ("a", "b")
    with pytest.raises(InputError, match="no label is a finding"):
        LabelSet(("normal",), "normal")
    with pytest.raises(InputError, match="not one of the labels"):
        LabelSet(("a",), "b")
    assert find_no_finding(["TB", "NORMAL"]) == "NORMAL"
    assert find_no_finding(["TB", "Mass"]) is None
    with pytest.raises(InputError, match="both mean no finding"):
        find_no_finding(["normal", "No finding"])


def test_a_subset_of_the_labels_in_a_chosen_order():
    chosen = NIH.choose(["mass", "no finding", "Edema"])
    assert (chosen.names, chosen.no_finding) == (("Mass", "No Finding", "Edema"), "No Finding")
    assert chosen.finding_columns.tolist() == [0, 2]
    assert NIH.choose(["Mass"]).no_finding is None


def test_all_four_values_survive_a_table_and_two_of_them_are_known():
    values = np.array([[1, 0], [UNCERTAIN, NOT_KNOWN]], np.int8)
    texts = encode_values(values)
    assert texts.tolist() == [["1", "0"], ["-1", ""]]
    assert np.array_equal(np.stack([parse_values(column) for column in texts.T], axis=1), values)
    assert np.array_equal(known_truth(values), [[1, 0], [np.nan, np.nan]], equal_nan=True)
    with pytest.raises(ValueError, match="got '2'"):
        parse_values(["1", "2"])


def test_every_label_has_a_valid_file_name():
    assert file_name("Pneumonia/Viral/COVID-19") == "Pneumonia_Viral_COVID-19"
    assert file_name("No Finding") == "No_Finding"
    assert "/" not in file_name("../../etc/passwd")


def iterate_constants(path):
    """Yield the constants of a module with their lines, without attribute and keyword names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant):
            yield node.value, node.lineno


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_readers_name_labels_or_count_them(path):
    if str(path.relative_to(PACKAGE)).startswith(READERS):
        return
    names = re.compile("|".join(re.escape(name) for name in NIH if name != "Mass"))
    for value, line in iterate_constants(path):
        place = f"{path}:{line}: {value!r}"
        if isinstance(value, str):
            for docstring_number in ("(15,", "15)", " 15 labels", "14 findings", "(N, 15"):
                assert docstring_number not in value, place
            if "\n" not in value and not value.endswith("."):  # displayed texts may give an example
                assert not names.search(value), place
        elif isinstance(value, int) and not isinstance(value, bool):
            assert value not in (len(NIH), len(NIH.findings)), place


@pytest.mark.parametrize("names", [("A", "B", "A"), ("Mass", "Mass")])
def test_a_label_named_twice_is_refused(names):
    with pytest.raises(InputError, match="have the same name"):
        LabelSet(names)
    with pytest.raises(InputError, match="have the same name"):
        NIH.choose(["Mass", "mass"])
