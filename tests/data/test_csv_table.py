import pytest

from cxrkeras.data.csv_table import name_lines, read_csv_table, read_header
from cxrkeras.errors import InputError

TEXT = 'image,patient\na.png,nan\n\n"b\nc.png",NA\n , \nd.png,"x,y"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_values_are_text_and_the_index_is_the_line(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT.replace("a.png", "\u00e4.png").replace("\n", "\r\n").encode(encoding))
    table = read_csv_table(path)
    assert table.to_numpy().tolist() == [["\u00e4.png", "nan"], ["b\r\nc.png", "NA"], ["d.png", "x,y"]]
    assert table.index.tolist() == [2, 4, 7]
    assert name_lines(table["patient"] == "NA") == "line 4"
    assert read_header(path) == ["image", "patient"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_read(tmp_path, separator):
    (tmp_path / "a.csv").write_text(separator.join(["image", " patient "]) + "\n" + separator.join(["a,b", "1"]) + "\n")
    table = read_csv_table(tmp_path / "a.csv")
    assert list(table.columns) == ["image", "patient"]
    assert table.to_numpy().tolist() == [["a,b", "1"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"image,patient\n\na,1\nb,2,3\n", ["line 4", "3 fields where the header has 2", "separator"]),
        (b"image,patient\na,1\nb\n", ["line 3", "1 fields", "missing"]),
        (b"image,patient\n\"a,1\nb,2\n", ["line 2"]),
        (b"image,patient,image\na,1,b\n", ["the column image 2 times"]),
        (b"image,patient\nr\xf6ntgen,1\n", ["not UTF-8 text", "line 2", "0xf6"]),
        ("image,patient\na,1\n".encode("utf-16-le"), ["UTF-16 without a byte order mark"]),
    ],
)  # fmt: skip
def test_malformed_tables_are_reported_by_line(tmp_path, content, words):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_csv_table(tmp_path / "a.csv")
    assert all(word in str(caught.value) for word in words), caught.value


def test_only_the_requested_columns_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c,d\n1,2,3\n1,2,3,4,5\n")
    assert read_csv_table(tmp_path / "a.csv", num_columns=2).to_numpy().tolist() == [["1", "2"], ["1", "2"]]
