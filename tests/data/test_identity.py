import hashlib

import numpy as np
import pandas as pd
import pytest

from cxrkeras.data.folds import HASHED, assign_folds, choose_test_set
from cxrkeras.data.identity import draw_shares, hash_patients, normalise_id, unify_patients
from cxrkeras.errors import InputError


@pytest.mark.parametrize(
    "spellings",
    [("7", "007", "7.0", " 7 ", "7."), ("AB7", "ab7", "Ab7\t"), ("Zo\u00eb", "Zoe\u0308", "ZO\u00cb"), ("0", "000"),
     ("a b", "a  b", "A\u00a0b")],
)  # fmt: skip
def test_spellings_of_a_patient_are_unified(spellings):
    assert len({normalise_id(text) for text in spellings}) == 1
    unified, notes = unify_patients(pd.Series([*spellings, "other"]))
    assert unified.tolist() == [spellings[0].strip()] * len(spellings) + ["other"]
    assert "1 patient is written in more than one way" in notes[0]
    assert len(set(hash_patients("nih", spellings, b"salt", 10).tolist())) == 1


@pytest.mark.parametrize("pair", [("70", "7"), ("7", "7.5"), ("AB07", "AB7"), ("1e3", "1000"), ("-7", "7")])
def test_different_patients_stay_different(pair):
    assert normalise_id(pair[0]) != normalise_id(pair[1])
    assert unify_patients(pd.Series(pair))[1] == []


@pytest.mark.parametrize("name", ["nan", "NA", "unknown", "None"])
def test_an_id_that_means_unknown_is_one_patient_and_noted(name):
    unified, notes = unify_patients(pd.Series(["p1", name, name, "p2", name]))
    assert unified.tolist() == ["p1", name, name, "p2", name]
    assert f"3 images have the patient {name!r}" in notes[0]
    assert unify_patients(pd.Series(["p1", name]))[1] == []


def test_hashes_are_pbkdf2_of_namespace_and_patient():
    (found,) = hash_patients("nih", ["007"], b"salt", 1000)
    assert found.item() == hashlib.pbkdf2_hmac("sha256", b"nih:7", b"salt", 1000, 16)
    settings = (("mine", ["7"], b"salt", 1000), ("nih", ["8"], b"salt", 1000), ("nih", ["7"], b"pepper", 1000))
    others = [hash_patients(*arguments)[0].item() for arguments in settings]
    assert len({found.item(), *others}) == 4


def test_patients_keep_their_fold_when_the_data_grow():
    rng = np.random.default_rng(0)
    many = np.array([f"p{number}" for number in rng.permutation(3000)])
    few = many[:400]
    sides = {}
    for patients in (few, many):
        is_test = choose_test_set(patients, "set", HASHED, 3)
        folds = assign_folds(patients[~is_test], 5, 3, rule=HASHED, namespace="set")
        sides[len(patients)] = dict(zip(patients[~is_test], folds, strict=True)) | dict.fromkeys(patients[is_test], -1)
    assert all(sides[3000][patient] == side for patient, side in sides[400].items())
    shares = np.bincount([side + 1 for side in sides[3000].values()]) / 3000
    assert shares == pytest.approx([0.2] + [0.16] * 5, abs=0.025)
    assert not np.array_equal(choose_test_set(many, "set", HASHED, 3), choose_test_set(many, "set", HASHED, 4))


def test_no_side_of_a_hashed_split_is_empty():
    for seed in range(300):
        patients = np.arange(2 + seed % 9)
        is_test = choose_test_set(patients, "set", HASHED, seed)
        assert 0 < is_test.sum() < len(patients)
        assert set(assign_folds(patients, len(patients), seed, rule=HASHED, namespace="set")) == set(patients)
        shares = draw_shares("set", map(str, patients), seed, "test")
        if (shares >= 0.2).all():  # the patient nearest to the border is the test set
            assert is_test.tolist() == (shares == shares.min()).tolist()
    with pytest.raises(InputError, match="two patients"):
        choose_test_set(np.array(["p"] * 5), "set", HASHED, 0)
