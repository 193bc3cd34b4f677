"""A page: one HTML file that opens without a network, with its figures also as PNGs next to it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from cxrkeras import __version__
from cxrkeras.files import make_folder, write_bytes, write_text

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("cxrkeras.reports", "templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns; `strong` are the (row, column) of the cells set in bold."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()

    def without_empty(self) -> "Table":
        """The same without columns that have nothing in them."""
        kept = [k for k in range(len(self.columns)) if any(row[k] for row in self.rows)]
        return Table([self.columns[k] for k in kept], [[row[k] for k in kept] for row in self.rows], self.caption)


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its PNG without the ending, and a sentence that says what it shows."""

    name: str
    figure: Figure
    caption: str


@dataclass
class Section:
    """What stands under one heading: sentences, warnings, figures, tables."""

    heading: str
    texts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass
class Page:
    title: str
    lede: list[str]
    warnings: list[str]
    sections: list[Section]


def save_page(page: Page, path: Path) -> None:
    """Write the page and the PNGs of its figures next to it; the page holds them too."""
    make_folder(path.parent)
    text, images = render_page(page)
    for name, content in images.items():
        write_bytes(path.with_name(f"{name}.png"), content)
    write_text(path, text)


def render_page(page: Page) -> tuple[str, dict[str, bytes]]:
    """The HTML of a page, with its figures in it, and these as PNG by name."""
    images = {}
    for section in page.sections:
        for picture in section.pictures:
            content = io.BytesIO()
            picture.figure.savefig(content, format="png")
            images[picture.name] = content.getvalue()
    inside = {name: base64.b64encode(content).decode() for name, content in images.items()}
    return render("page.html", page=page, images=inside, version=__version__), images


def render(template: str, **content) -> str:
    """Fill a template of this room."""
    return _TEMPLATES.get_template(template).render(**content)
