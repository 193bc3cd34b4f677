"""Publishing on Hugging Face, to a server on 127.0.0.1."""

import re

import pytest
import yaml

from cxrkeras.errors import InputError
from cxrkeras.reports.card import write_adopted_card
from cxrkeras.reports.sharing import prepare_publication, send
from cxrkeras.scoring.adoption import adopt_public
from cxrkeras.scoring.packs import fetch_pack, install_pack
from tests.support.hub import serve_hub
from tests.support.public import NAME, known, tiny_row, write_tiny
from tests.support.shell import run_here

REPOSITORY = "somebody/chest-net"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")  # of huggingface_hub, where it sends a file


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_tiny(folder / "tiny.pt")
    with pytest.MonkeyPatch.context() as patch, known(patch, tiny=tiny_row()):
        found = adopt_public(NAME, file=str(folder / "tiny.pt"), root=folder / "runs").fold
    write_adopted_card(found)
    return found


@pytest.fixture
def publication(fold, tmp_path):
    return prepare_publication(fold, REPOSITORY, tmp_path)


def test_what_is_published_can_be_adopted(publication, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with serve_hub(monkeypatch) as hub:
        address = send(publication, is_private=True)
        assert address.startswith(f"{hub.address}/{REPOSITORY}/commit/")
        (created,) = hub.created
        assert created["visibility"] == "private"
        files = hub.repositories[REPOSITORY]
        assert set(files) == {"README.md", "chest-net.cxr.zip"}
        assert files["chest-net.cxr.zip"] == publication.pack.path.read_bytes()
        folder, is_new = install_pack(fetch_pack(f"hf://{REPOSITORY}"), root=tmp_path / "runs")
        assert is_new
        assert folder.parent.name == NAME
        with pytest.raises(InputError, match="Hugging Face has no somebody/else"):
            fetch_pack("hf://somebody/else")


def test_the_hub_can_read_the_card(publication):
    _, metadata, card = publication.readme.split("---\n", 2)
    read = yaml.safe_load(metadata)
    assert read["license"] == "mit"
    assert read["pipeline_tag"] == "image-classification"
    assert read["library_name"] == "cxrkeras"
    (model,) = read["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["split"] == "a test set of its own"
    assert result["metrics"] == [{"type": "roc_auc", "value": 0.8, "name": "AUC of Mass"}]
    assert card.startswith("# Model card: tiny")
    assert "cxrkeras adopt hf://somebody/chest-net" in card


def test_who_is_not_known_to_the_hub_is_told(publication, monkeypatch):
    with serve_hub(monkeypatch, token="hf_wrong") as hub:
        with pytest.raises(InputError, match=r"refused .*401.*nothing was published: log in with `hf auth login`"):
            send(publication)
        assert not hub.repositories


def test_without_a_connection_nothing_hangs(publication, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(InputError, match="Is this machine online"):
        send(publication)
    with pytest.raises(InputError, match="Is this machine online"):
        fetch_pack(f"hf://{REPOSITORY}")


@pytest.mark.parametrize("name", ["", "chest", "a/b/c", "a b/c", "../x", "a/.."])
def test_odd_repositories_are_refused(fold, tmp_path, name):
    with pytest.raises(InputError, match="repository"):
        prepare_publication(fold, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_shows_and_asks_before_it_sends(fold, monkeypatch):
    with serve_hub(monkeypatch) as hub:
        done = run_here("publish", "--run", fold.folder, "--repo", REPOSITORY, "--dry-run")
        assert done.returncode == 0
        assert re.search(r"chest-net.cxr.zip, [\d.]+ MB", done.stdout)
        assert "nothing was sent: --dry-run" in done.stdout
        assert run_here("publish", "--run", fold.folder, "--repo", REPOSITORY).returncode == 1  # nobody answers
        assert not hub.requests
        done = run_here("publish", "--run", fold.folder, "--repo", REPOSITORY, "--yes")
        assert done.returncode == 0, done.stdout
        assert "cxrkeras adopt hf://somebody/chest-net" in done.stdout
        assert set(hub.repositories[REPOSITORY]) == {"README.md", "chest-net.cxr.zip"}
