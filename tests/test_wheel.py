"""The package as it is installed from a wheel, in an empty folder."""

import json
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.public_parity import draw_state
from tests.support.dicoms import make_dicom
from tests.support.public import serve_folder
from tests.support.torch_files import save_state

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

    program = folder / "venv" / "bin" / "cxrkeras"

    def run(*arguments, cwd):
        done = subprocess.run([program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    run.program = program
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


def wait_for(address, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {address}")


@pytest.mark.slow
def test_a_new_user_adopts_a_network_looks_at_images_and_passes_it_on(cxrkeras, tmp_path, monkeypatch):
    """As with the real file of xrv-nih, but with weights drawn from a seed and from 127.0.0.1."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    here, there, images = (tmp_path / name for name in ("here", "there", "images"))
    for folder in (here, there, images, tmp_path / "served"):
        folder.mkdir()
    save_state(tmp_path / "served" / "nih.pt", draw_state("xrv-nih"), is_legacy=True, epoch=1)
    grey = np.linspace(0, 255, 80 * 90).reshape(80, 90)
    Image.fromarray(grey.astype(np.uint8)).save(images / "a.png")
    (images / "b.dcm").write_bytes(make_dicom((grey * 16).astype(np.uint16), BitsStored=12))
    assert "cxrkeras adopt" in cxrkeras("app", cwd=here).stdout
    with serve_folder(tmp_path / "served") as address:
        done = cxrkeras("adopt", "xrv-nih", "--file", f"{address}/nih.pt", cwd=here)
    assert done.returncode == 0, done.stdout
    assert "SHA-256 is" in done.stdout
    first = cxrkeras("predict", images, "--csv", "a.csv", cwd=here)
    assert first.returncode == 0, first.stdout
    assert "xrv-nih" in first.stdout  # the adopted network is taken as there is no other, and named
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [cxrkeras.program, "app", "--port", str(port)], cwd=here, stdout=subprocess.DEVNULL
    ) as server:
        try:
            model = wait_for(f"http://127.0.0.1:{port}/api/v1/model")
        finally:
            server.terminate()
    assert model["run"] == "xrv-nih"
    assert model["calibration"] == "uncalibrated"
    packed = cxrkeras("pack", "--out", tmp_path / "nih.cxr.zip", cwd=here)
    assert packed.returncode == 0, packed.stdout
    assert cxrkeras("adopt", tmp_path / "nih.cxr.zip", cwd=there).returncode == 0
    assert cxrkeras("predict", images, "--csv", "b.csv", "--run", "xrv-nih", cwd=there).returncode == 0
    assert (here / "a.csv").read_bytes() == (there / "b.csv").read_bytes()
