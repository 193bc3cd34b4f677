import numpy as np
import pandas as pd
import pytest

from cxrkeras.data.demographics import parse_ages, parse_sexes, parse_views


@pytest.mark.parametrize(
    ("parse", "texts", "expected"),
    [
        (parse_sexes, ["F", "f", "Female", "WOMAN", "M", "male ", "Man", "other", "diverse", "", "unknown", "nan"],
         ["F"] * 4 + ["M"] * 3 + ["other"] * 2 + [""] * 3),
        (parse_views, ["PA", "pa", "PA view", "Postero-anterior", "frontal PA", "AP", "ap supine", "AP_portable",
                       "anteroposterior", "Lateral", "LL", "left lateral", "L", "Frontal", "oblique", "LAO", "", "NA"],
         ["PA"] * 5 + ["AP"] * 4 + ["lateral"] * 4 + ["frontal"] + ["other"] * 2 + [""] * 2),
    ],
)  # fmt: skip
def test_words_for_sex_and_view(parse, texts, expected):
    parsed, notes = parse(pd.Series(texts))
    assert parsed.tolist() == expected
    assert notes == []


def test_ages_in_years():
    texts = [
        "058Y",
        "011M",
        "026W",
        "001D",
        "47",
        "45 years",
        "45y",
        "3 mo",
        "45,5",
        "45 yo",
        "30 years old",
        "0 y",
    ]
    ages, notes = parse_ages(pd.Series([*texts, "", "unknown"]))
    expected = [58, 11 / 12, 26 / 52.18, 1 / 365.25, 47, 45, 45, 0.25, 45.5, 45, 30, 0]
    assert ages[: len(texts)].tolist() == pytest.approx(expected)
    assert ages[len(texts) :].isna().all()
    assert notes == []
    ages, notes = parse_ages(pd.Series(["148", "414Y", "120"]))
    assert np.isnan(ages).tolist() == [True, True, False]
    assert notes == ["age: 2 values above 120 years left blank (largest: 414)"]


@pytest.mark.parametrize("parse", [parse_sexes, parse_views, parse_ages])
def test_unrecognised_values_are_listed_and_counted(parse):
    parsed, notes = parse(pd.Series(["weiblich", "weiblich", "pa/ap", "-3", ""]))
    assert parsed.isin(["", np.nan]).all()
    assert "4 values are not recognised and left blank: 'weiblich' (2), " in notes[0]
