import os

import pandas as pd
import pytest

from cxrkeras.data.image_files import list_folder, locate_images


def locate(folder, names):
    located = locate_images(pd.Series(names), list_folder(folder))
    return located, [path and os.path.relpath(path, folder) for path in located.paths]


@pytest.fixture
def folder(tmp_path):
    def write(files):
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        return tmp_path

    return write


def test_a_name_in_two_folders_is_an_error_that_names_both(folder):
    root = folder(
        {"images/a.png": b"1", "masks/a.png": b"2", "images/b.png": b"3", "thumbs/b.png": b"3", "c.png": b"4"}
    )
    located, paths = locate(root, ["a.png", "b.png", "c.png"])
    assert len(located.errors) == 1
    assert all(words in located.errors[0] for words in ("1 name is in several folders", "images/a.png", "masks/a.png"))
    assert paths[1:] == ["images/b.png", "c.png"]  # equal bytes are the same image
    located, paths = locate(root, ["images/a.png", "masks/a.png", "./c.png"])
    assert not located.errors
    assert paths == located.ids == ["images/a.png", "masks/a.png", "c.png"]


def test_a_file_next_to_the_table_and_in_a_folder_is_ambiguous(folder):
    root = folder({"a.png": b"1", "masks/a.png": b"2"})
    assert locate(root, ["a.png"])[0].errors
    assert locate(root, ["./a.png"])[1] == ["a.png"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("images/1/a.png", "images/1/a.png"),
        ("images\\1\\a.PNG", "images/1/a.png"),
        ("set/images/1/a.png", "images/1/a.png"),  # a leading folder is dropped
        ("C:\\data\\images\\1\\a.png", "images/1/a.png"),
        ("/mnt/images/1/a.png", "images/1/a.png"),
        ("1/a.png", "images/1/a.png"),  # a leading folder is added
    ],
)
def test_paths_match_with_any_leading_folders_and_slashes(folder, given, found):
    root = folder({f"images/{k}/a.png": bytes([k]) for k in (1, 2)})
    located, paths = locate(root, [given, given.replace("1", "2")])
    assert not located.errors
    assert paths == located.ids == [found, found.replace("1", "2")]


def test_leading_folders_are_kept_if_a_row_would_match_two_files_or_none(folder):
    root = folder({"x/1/a.png": b"1", "y/1/a.png": b"2", "x/2/a.png": b"3"})
    assert locate(root, ["1/a.png", "2/a.png"])[1] == [None, None]
    assert locate(root, ["2/a.png"])[1] == ["x/2/a.png"]
    assert locate(root, ["2/a.png", "3/a.png"])[1] == [None, None]
    assert locate(root, ["x/1/a.png", "set/x/2/a.png"])[1] == ["x/1/a.png", None]  # one exists as given


def test_extensions_match_in_any_case_and_others_give_hints(folder):
    root = folder(
        {"images/a.PNG": b"1", "images/b.jpg": b"2", "images/c.dcm": b"3", "images/d": b"4", "odd\\name.png": b"5"}
    )
    located, paths = locate(root, ["a.png", "b.png", "c.DCM", "d", "e.png", "odd\\name.png"])
    assert paths == ["images/a.PNG", None, "images/c.dcm", "images/d", None, "odd\\name.png"]
    assert located.hints == ["1 missing name has a file with another extension (first: b.png as images/b.jpg)"]


def test_links_are_followed_without_cycles(folder, tmp_path_factory):
    root = folder({"images/a.png": b"1"})
    outside = tmp_path_factory.mktemp("outside")
    (outside / "b.png").write_bytes(b"2")
    (root / "more").symlink_to(outside)
    (root / "images" / "cycle").symlink_to(root)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.png").write_bytes(b"3")
    located, paths = locate(root, ["a.png", "b.png"])
    assert not located.errors
    assert paths == ["images/a.png", "more/b.png"]


def test_names_are_compared_after_unicode_normalisation(folder):
    root = folder({"images/Zoe\u0308.png": b"1"})
    assert locate(root, ["Zo\u00eb.png"])[1] == ["images/Zoe\u0308.png"]
