"""Texts for people: what came from outside made harmless, numbers with their words."""

import unicodedata

REPLACEMENT = "\ufffd"
LONGEST_NAME = 255  # characters of a name that came from outside


def clean(text: str, longest: int | None = None, keep: str = "") -> str:
    """A text without control characters, escape sequences and other signs that do not print, cut to `longest`.

    Each such character becomes the replacement character, but those of `keep`; blanks of any kind become a blank.
    """
    shown = "".join(
        sign if sign.isprintable() or sign in keep else " " if unicodedata.category(sign) == "Zs" else REPLACEMENT
        for sign in text
    )
    return shown if longest is None or len(shown) <= longest else shown[: longest - 3] + "..."


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """A text from outside for a figure: clean, and with dollar signs that begin no formula."""
    return clean(text, longest).replace("$", r"\$")


_VERBS = {"is": "are", "has": "have", "was": "were", "lies": "lie", "does": "do", "begins": "begin"}


def num_of(number: float, thing: str, verb: str = "") -> str:
    """`1 image`, `1,200 patients`; with a verb, given in the singular, `1 image is`, `2 images are`."""
    plural = thing[:-1] + "ies" if thing.endswith("y") else thing + "es" if thing.endswith("x") else thing + "s"
    words = (thing, verb) if number == 1 else (plural, _VERBS.get(verb, verb))
    return " ".join(filter(None, (f"{number:,.0f}", *words)))


def format_share(share: float) -> str:
    """A probability in per cent, `12.3 %`; what would read 0.0 or 100.0 is `<0.1 %` and `>99.9 %`."""
    if share != share:
        return "undefined"
    if share < 0.001:
        return "<0.1 %"
    return ">99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def fit_file_name(stem: str, ending: str, longest: int = 255) -> str:
    """A name for a file made of another one's: clean, and of at most so many bytes, its stem cut if need be."""
    room = longest - len(ending.encode())
    return clean(stem).replace("/", REPLACEMENT).encode()[:room].decode(errors="ignore") + ending
