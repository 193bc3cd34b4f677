"""The package as it is installed from a wheel, in an empty folder."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cxrkeras(tmp_path_factory):
    """A function that runs a command of the installed package in a folder; its libraries are those of the tests."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    pip = [sys.executable, "-m", "pip"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    (site,) = (folder / "venv" / "lib").glob("*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*arguments, cwd):
        done = subprocess.run(
            [folder / "venv" / "bin" / "cxrkeras", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.mark.slow
def test_an_installed_package_has_its_experiments_everywhere(cxrkeras, tmp_path):
    shown = cxrkeras("experiment", "phantom", cwd=tmp_path)
    assert '[model]\nname = "resnet18"' in shown.stdout
    assert "there are" in cxrkeras("experiment", "fantom", cwd=tmp_path).stdout
    saved = cxrkeras("experiment", "phantom", "--save", "--set", "training.epochs=1", cwd=tmp_path)
    assert saved.returncode == 0, saved.stdout
    assert "epochs = 1\n" in (tmp_path / "experiments" / "phantom.toml").read_text()
    again = cxrkeras("experiment", "phantom", "--save", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stdout
    for command in (["models"], ["datasets"], ["vocabulary", "nih", "vindr"], ["phantom", "--n", "60", "--size", "64"]):
        assert cxrkeras(*command, cwd=tmp_path).returncode == 0
    assert cxrkeras("records", "--data", "data/phantom", "--size", "32", cwd=tmp_path).returncode == 0
    trained = cxrkeras("train", "--experiment", "phantom", "--set", "data.records=phantom-32", cwd=tmp_path)
    assert trained.returncode == 0, trained.stdout
    (image, *_) = sorted((tmp_path / "data" / "phantom" / "images").iterdir())
    assert cxrkeras("predict", image, cwd=tmp_path).returncode == 0
    listed = cxrkeras("runs", cwd=tmp_path)
    assert "phantom-" in listed.stdout
