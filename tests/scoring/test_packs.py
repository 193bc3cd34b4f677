"""Packs: whole, verified before anything is loaded, and equal to the last bit."""

import functools
import hashlib
import io
import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

from cxrkeras.config import CONFIG
from cxrkeras.errors import InputError
from cxrkeras.models.compiled import load_network
from cxrkeras.models.past import MEMBER
from cxrkeras.reports import sharing
from cxrkeras.reports.card import write_adopted_card
from cxrkeras.reports.report import write_report
from cxrkeras.reports.sharing import pack_run
from cxrkeras.scoring.adoption import adopt_public
from cxrkeras.scoring.external_validation import Choice, validate_run
from cxrkeras.scoring.find_runs import find_fold
from cxrkeras.scoring.packs import CONTENTS, fetch_pack, install_pack
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import CALIBRATED_ON, CALIBRATION, MODEL, MODEL_CARD, THRESHOLDS, TRAINED_ON
from tests.support.public import NAME, known, serve_folder, tiny_row, write_tiny


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """A small public network, adopted."""
    folder = tmp_path_factory.mktemp("source")
    write_tiny(folder / "tiny.pt")
    with pytest.MonkeyPatch.context() as patch, known(patch, tiny=tiny_row()):
        found = adopt_public(NAME, file=str(folder / "tiny.pt"), root=folder / "runs").fold
    write_adopted_card(found)
    return found


@pytest.fixture(scope="module")
def pack(fold, tmp_path_factory):
    return pack_run(fold, tmp_path_factory.mktemp("packs") / "tiny.cxr.zip").path


@pytest.fixture(scope="module")
def own(trained, tmp_path_factory):
    """A trained run as two packs, without and with the hashes of its patients."""
    folder = tmp_path_factory.mktemp("own")
    run = folder / "runs" / trained.folder.parent.name / "fold0"
    shutil.copytree(trained.folder, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "write_report", functools.partial(write_report, replicates=20))
        packs = {None: pack_run(Fold(run), folder / "plain.cxr.zip", licence="MIT").path}
        patch.setattr(sharing, "write_report", lambda *arguments, **options: (None, []))  # it is there
        packs["hashed"] = pack_run(Fold(run), folder / "hashed.cxr.zip", patients="hashed").path
    return Fold(run), packs


def read_files(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_files(path, files, *, keep_checksums=False):
    """Write a pack of these files, with right checksums unless they are to be kept."""
    if not keep_checksums:
        contents = json.loads(files[CONTENTS])
        contents["files"] = {
            name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != CONTENTS
        }
        files = files | {CONTENTS: json.dumps(contents).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def change_json(file, /, **changes):
    def change(files):
        files[file] = json.dumps(json.loads(files[file]) | changes).encode()

    return change


def test_an_adopted_pack_is_the_same_to_the_last_bit(fold, pack, tmp_path):
    folder, is_new = install_pack(pack, root=tmp_path / "runs")
    assert is_new
    assert folder == tmp_path / "runs" / NAME / "fold0"
    assert not install_pack(pack, root=tmp_path / "runs")[1]
    for name in (CALIBRATION, THRESHOLDS, MODEL_CARD):
        assert (folder / name).read_bytes() == (fold.folder / name).read_bytes()
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype(np.float32)
    ours, theirs = (load_network(place / MODEL, fold.labels)(images).numpy() for place in (fold.folder, folder))
    np.testing.assert_array_equal(ours, theirs)
    assert Fold(folder).config == fold.config


def test_the_same_network_gives_the_same_pack(fold, pack, tmp_path):
    assert pack_run(fold, tmp_path / "b.cxr.zip").path.read_bytes() == pack.read_bytes()


def test_a_pack_of_a_trained_run_has_its_scores_and_nobody(own, tmp_path):
    fold, packs = own
    files = read_files(packs[None])
    assert TRAINED_ON not in files
    with zipfile.ZipFile(io.BytesIO(files[MODEL])) as archive:
        assert MEMBER not in archive.namelist()
    predictions = fold.predictions["test"]
    everything = b"".join(files[name] for name in files if name != MODEL)
    for ids in (predictions.image_ids, [f'"{patient}"' for patient in predictions.patient_ids]):
        assert not any(str(name).encode() in everything for name in ids)
    assert str(fold.folder.parents[2]).encode() not in everything
    folder, _ = install_pack(packs[None], root=tmp_path / "runs")
    adopted = Fold(folder)
    assert adopted.name == f"{fold.folder.parent.name}-fold0"
    assert adopted.trained_on == fold.trained_on
    assert adopted.unseen == fold.unseen
    assert adopted.config.is_synthetic
    assert adopted.operating_points == fold.operating_points
    (mean,) = [row for row in adopted.config.adopted.published if row.score.startswith("mean") and "test" in row.images]
    assert mean.value == pytest.approx(np.nanmean(fold.aucs["test"][list(fold.labels.finding_columns)]))
    assert mean.low < mean.value < mean.high
    card = (folder / MODEL_CARD).read_text()
    for heading in ("Intended use", "Data", "Scores", "Scores by group", "Calibration", "Heat maps", "Known limits"):
        assert f"## {heading}" in card
    with pytest.raises(InputError, match="it is not known whom"):
        validate_run(adopted, fold.records, Choice(split="test"))


def test_hashes_of_patients_come_along_if_asked(own, tmp_path):
    fold, packs = own
    folder, _ = install_pack(packs["hashed"], root=tmp_path / "runs")
    adopted, records = Fold(folder), fold.records
    assert adopted.past.is_known
    with pytest.raises(InputError, match="was calibrated on images of"):
        validate_run(adopted, records, Choice(split="train_val"))
    assert len(validate_run(adopted, records, Choice(split="test")).predictions)
    assert {TRAINED_ON, CALIBRATED_ON} <= set(read_files(packs["hashed"]))


def test_refusals_of_packing(fold, own, pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        pack_run(fold, pack)
    with pytest.raises(InputError, match=r"ends with .cxr.zip"):
        pack_run(fold, tmp_path / "a.zip")
    with pytest.raises(InputError, match="does not have the hashes"):
        pack_run(fold, patients="hashed")
    with pytest.raises(InputError, match="licence of its authors"):
        pack_run(fold, licence="MIT")
    with pytest.raises(InputError, match="patients must be hashed"):
        pack_run(own[0], patients="all")
    assert not list(tmp_path.iterdir())


class _Layer(keras.layers.Layer):
    def call(self, x):
        return x


def _save(network):
    keras.saving.get_custom_objects().clear()
    out = io.BytesIO()
    path = f"{id(network)}.keras"
    network.save(path)
    with open(path, "rb") as file:
        out.write(file.read())
    return out.getvalue()


def put_network(build):
    def change(files):
        image = keras.Input((32, 32, 1))
        x = keras.layers.GlobalAveragePooling2D()(build(image))
        files[MODEL] = _save(keras.Model(image, keras.layers.Dense(2, name="logits")(x)))

    return change


def put_links(files):
    with zipfile.ZipFile(io.BytesIO(files[MODEL])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/x.h5", "/")
    members["model.weights.h5"] = out.getvalue()
    files[MODEL] = _zip(members)


def rename_class(files):
    with zipfile.ZipFile(io.BytesIO(files[MODEL])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    described = (
        members["config.json"].decode().replace('"keras.layers", "class_name": "Dense"', '"os", "class_name": "Dense"')
    )
    assert '"os"' in described
    members["config.json"] = described.encode()
    files[MODEL] = _zip(members)


def _zip(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


TAMPERED = {
    "a Lambda": (put_network(lambda x: keras.layers.Lambda(lambda y: y)(x)), "refused: it has a Lambda"),
    "a layer of one's own": (put_network(lambda x: _Layer()(x)), "refused: it has a _Layer"),
    "an allowed name of another module": (rename_class, "refused: it has a Dense of os"),
    "weights elsewhere": (put_links, "link to other files"),
    "no network": (lambda files: files.update({MODEL: b"x"}), "is not a pack, or is damaged"),
    "another label order": (change_json(CONFIG, labels=["Effusion", "Mass"]), "labels"),
    "another kind": (lambda files: files.update({CONFIG: b"{}"}), "its config.json is invalid"),
    "a path": (lambda files: files.update({"../x": b"x"}), "does not hold '../x'"),
    "more": (lambda files: files.update({"predictions_test.csv": b"x"}), "does not hold 'predictions_test.csv'"),
    "less": (lambda files: files.pop(THRESHOLDS), "lacks thresholds.json"),
    "a name with a path": (change_json(CONTENTS, name="../../x"), "is not the name of a run"),
    "a newer version": (change_json(CONTENTS, version=9), "version 9; expected 1"),
    "thresholds over 1": (
        lambda files: files.update({THRESHOLDS: files[THRESHOLDS].replace(b"0.4", b"4.4")}),
        "thresholds.json is damaged",
    ),
    "calibration that falls": (
        lambda files: files.update({CALIBRATION: files[CALIBRATION].replace(b'"slope": 1.0', b'"slope": -1.0')}),
        "calibration.json is damaged",
    ),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_what_was_tampered_with_is_refused_though_its_checksums_are_right(pack, tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, message = TAMPERED[kind]
    files = read_files(pack)
    change(files)
    path = write_files(tmp_path / "a.cxr.zip", files)
    with pytest.raises(InputError, match=message):
        install_pack(path, root=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))
    assert not (tmp_path.parent / "x").exists()


def test_a_changed_byte_is_found(pack, tmp_path):
    files = read_files(pack)
    files[CALIBRATION] = files[CALIBRATION].replace(b"1.0", b"1.1")
    path = write_files(tmp_path / "a.cxr.zip", files, keep_checksums=True)
    with pytest.raises(InputError, match=r"was changed: calibration.json has the SHA-256 sum"):
        install_pack(path, root=tmp_path / "runs")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x05\x06" + b"\0" * 18])
def test_other_files_are_no_packs(tmp_path, content):
    (tmp_path / "a.cxr.zip").write_bytes(content)
    with pytest.raises(InputError, match="is not a pack"):
        install_pack(tmp_path / "a.cxr.zip", root=tmp_path / "runs")


def test_another_run_of_its_name_is_kept(pack, tmp_path):
    (tmp_path / "runs" / NAME / "fold0").mkdir(parents=True)
    with pytest.raises(InputError, match="there is another run"):
        install_pack(pack, root=tmp_path / "runs")


def test_a_run_may_be_named_by_its_pack(pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(pack, "tiny.cxr.zip")
    assert find_fold("tiny.cxr.zip").parts[-2:] == (NAME, "fold0")
    with pytest.raises(InputError, match=r"no pack nowhere.cxr.zip"):
        find_fold("nowhere.cxr.zip")


def test_a_pack_is_fetched_from_an_address(pack, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    digest = hashlib.sha256(pack.read_bytes()).hexdigest()
    with serve_folder(pack.parent) as address:
        assert fetch_pack(f"{address}/tiny.cxr.zip", digest).read_bytes() == pack.read_bytes()
        with pytest.raises(InputError, match="SHA-256"):
            fetch_pack(f"{address}/tiny.cxr.zip", "0" * 64)
        with pytest.raises(InputError, match="404"):
            fetch_pack(f"{address}/nowhere.cxr.zip")
