import json
import zipfile

import numpy as np
import pytest

from cxrkeras.data.identity import hash_patients
from cxrkeras.errors import InputError
from cxrkeras.models.past import MEMBER, NOBODY, UNKNOWN, Past, Patients, encode_past, parse_past, read_past, write_past


def past_of(ids, salt=b"salt"):
    return Past(True, (Patients(salt, 10, np.unique(hash_patients("set", ids, salt, 10))),))


def find(past, ids):
    return past.find(ids, lambda ids, salt, rounds: hash_patients("set", ids, salt, rounds))


def zip_file(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_json", ".json"), content)
    return path


def test_a_past_survives_writing_and_reading(tmp_path):
    past = past_of(["1", "2"]).join(past_of(["3"], b"other"))
    path = zip_file(tmp_path / "a.keras", config_json="{}")
    assert read_past(path) == UNKNOWN
    write_past(path, past)
    again = read_past(path)
    assert encode_past(again) == encode_past(past)
    assert find(again, ["1", "02", "3", "4"]) == {"1", "02", "3"}
    with zipfile.ZipFile(path) as archive:
        assert archive.read("config.json") == b"{}"


def test_joining_keeps_each_patient_once_and_unknown_pasts_unknown():
    joined = past_of(["1", "2"]).join(past_of(["2", "3"]), NOBODY)
    assert joined.is_known
    assert [len(patients.hashes) for patients in joined.patients] == [3]
    assert not joined.join(UNKNOWN).is_known
    assert find(joined.join(UNKNOWN), ["3"]) == {"3"}
    assert find(NOBODY, ["1"]) == set()


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"patients": 3}, {"patients": [{"salt": "zz", "rounds": 10, "hashes": ""}]},
     {"patients": [{"salt": "00", "rounds": 10, "hashes": "AAA="}]},
     {"patients": [{"salt": "00", "rounds": 10**9, "hashes": ""}]}],
)  # fmt: skip
def test_a_damaged_past_is_refused_by_name(tmp_path, change):
    content = encode_past(past_of(["1"])) | change
    with pytest.raises(InputError, match=r"a\.keras: its record of the patients"):
        parse_past(content, tmp_path / "a.keras")
    path = zip_file(tmp_path / "a.keras", **{MEMBER.replace(".json", "_json"): json.dumps(content)})
    with pytest.raises(InputError, match="damaged"):
        read_past(path)
    with pytest.raises(InputError, match="damaged"):
        read_past(zip_file(tmp_path / "b.keras", **{MEMBER.replace(".json", "_json"): "{"}))


def test_a_file_that_is_not_an_archive_has_no_past(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF")
    assert read_past(tmp_path / "a.h5") == read_past(tmp_path / "gone.keras") == UNKNOWN
