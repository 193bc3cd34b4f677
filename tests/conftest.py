import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from cxrkeras.config import load_experiment
from cxrkeras.data.readers import read_dataset
from cxrkeras.phantoms.writing import write_phantoms

TEST_DATA = "CXRKERAS_TEST_DATA"  # environment variable: a folder of real images that the repository does not hold


def find_test_data(name: str) -> Path:
    """A folder of that name under the test data; the test is skipped where there is none."""
    folder = Path(os.environ.get(TEST_DATA, "nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in the folder that {TEST_DATA} names")
    return folder


@pytest.fixture(scope="session", autouse=True)
def repository_root():
    """Experiments are found from here, wherever pytest starts."""
    os.chdir(Path(__file__).parents[1])


@pytest.fixture(scope="session")
def nih_sample():
    """A few hundred images of the real dataset."""
    return find_test_data("nih-sample")


@pytest.fixture(scope="session")
def cases():
    """Small files that broke something once."""
    return find_test_data("cases")


@pytest.fixture(scope="session")
def dicom_real():
    """Real chest radiographs as DICOM."""
    return find_test_data("dicom-real")


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantoms(folder, num_images=200, size=64)
    return folder


@pytest.fixture(scope="session")
def dataset(phantom_folder):
    return read_dataset(phantom_folder)


@pytest.fixture(scope="session")
def records(dataset, tmp_path_factory):
    from cxrkeras.records.write import write_records

    folder = tmp_path_factory.mktemp("records") / "phantom-32"
    write_records(dataset, folder, size=32)
    return folder


@pytest.fixture(scope="session")
def small_experiment(records):
    """resnet18 at 32 px for two epochs."""
    settings = {
        "data": {"records": str(records)},
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"epochs": 2},
        "optimiser": {"learning_rate": 1e-3},
    }
    return load_experiment(settings=settings)


@pytest.fixture(scope="session")
def trained(small_experiment, tmp_path_factory):
    """A finished fold, shared by every test that needs one."""
    from cxrkeras.training.fit import train_fold

    return train_fold(small_experiment, root=tmp_path_factory.mktemp("runs")).fold


@pytest.fixture(scope="session")
def predictor(trained):
    """The finished fold, loaded for answers."""
    from cxrkeras.predict.predictor import Predictor

    return Predictor(trained)


@pytest.fixture
def run_copy(trained, tmp_path):
    """The finished fold in a folder of its own, for tests that change it."""
    folder = tmp_path / "runs" / trained.folder.parent.name / trained.folder.name
    shutil.copytree(trained.folder, folder)
    return folder
