import io

import pytest
from rich.console import Console
from rich.table import Table

from cxrkeras.cli import shell
from cxrkeras.cli.shell import _Cleaner
from cxrkeras.text import clean, fit_file_name, format_share, num_of, plain

ESCAPES = "a\x1b[2J\x1b]0;owned\x07b\r\x08\u202egnp\ud800\x9b31m"


def test_unprintable_characters_are_replaced_and_long_texts_truncated():
    shown = clean(ESCAPES)
    assert shown.isprintable()
    assert (shown[0], shown[-3:]) == ("a", "31m")
    assert clean("Zoë's X-ray (2)\u00a0ü", None) == "Zoë's X-ray (2) ü"
    assert clean("x" * 500, 20) == "x" * 17 + "..."
    assert clean("a\nb") == "a\ufffdb"
    assert clean("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "<0.1 %"), (0.0009, "<0.1 %"), (0.001, "0.1 %"), (0.5, "50.0 %"), (0.999, "99.9 %"), (0.9995, ">99.9 %"),
     (1.0, ">99.9 %"), (float("nan"), "undefined")],
)  # fmt: skip
def test_shares(share, text):
    assert format_share(share) == text


def test_nouns_and_verbs_agree_with_the_number():
    assert [num_of(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
    assert [num_of(n, "box", "is") for n in (1, 2)] == ["1 box is", "2 boxes are"]
    assert num_of(1, "patient", "has") == "1 patient has"


def test_file_names_fit():
    ending = "-0123abcd-all.png"
    assert fit_file_name("short", ending) == "short" + ending
    for stem in ("x" * 251, "ü" * 200, "a\udcff\udcfe", "a/b\n"):
        name = fit_file_name(stem, ending)
        assert len(name.encode()) <= 255
        assert name.endswith(ending)
        assert "/" not in name


def test_dollar_signs_do_not_start_a_formula():
    from matplotlib.figure import Figure

    name = plain(r"cost $\frac{ and $x$")
    figure = Figure()
    figure.suptitle(name)
    figure.savefig(io.BytesIO(), format="png")
    assert figure.texts[0]._preprocess_math(name)[1] is False


def test_external_text_never_reaches_the_terminal_unsanitised():
    """Neither as a line nor in a table nor in an error; the package's own colours do."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, soft_wrap=True, markup=False)
    console.push_render_hook(_Cleaner())
    table = Table(title=ESCAPES)
    table.add_column(ESCAPES)
    table.add_row(ESCAPES)
    console.print(f"first\nsecond {ESCAPES}")
    console.print(table)
    console.print(f"{ESCAPES}", style="bold red")
    raw = out.getvalue()
    assert "first\nsecond" in raw
    assert "\x1b[1;31m" in raw
    for sequence in ("\x1b[2J", "\x1b]0", "\x07", "\u202e", "\x08", "\x9b", "\ud800"):
        assert sequence not in raw
    raw.encode()


def test_long_errors_are_truncated(capsys):
    shell.print_error("y" * 10_000)
    assert len(capsys.readouterr().out) < 2100
