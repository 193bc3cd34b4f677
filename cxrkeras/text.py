"""Text for display: sanitised external text, counts with their nouns, formatted numbers."""

import math
import unicodedata

REPLACEMENT = "\ufffd"
LONGEST_NAME = 255  # characters of an external name


def clean(text: str, longest: int | None = None, keep: str = "") -> str:
    """Replace control characters, escape sequences and other unprintable characters; truncate to `longest` characters.

    Each unprintable character becomes the replacement character, except those in `keep`; spaces of any kind become a
    plain space.
    """
    shown = "".join(
        char if char.isprintable() or char in keep else " " if unicodedata.category(char) == "Zs" else REPLACEMENT
        for char in text
    )
    return shown if longest is None or len(shown) <= longest else shown[: longest - 3] + "..."


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Sanitise external text for a figure: as `clean`, with dollar signs escaped so that none starts a formula."""
    return clean(text, longest).replace("$", r"\$")


_VERBS = {"is": "are", "has": "have", "was": "were", "lies": "lie", "does": "do", "begins": "begin"}


def num_of(number: float, thing: str, verb: str = "") -> str:
    """Format a count with its noun: `1 image`, `1,200 patients`; with a verb in the singular: `2 images are`."""
    plural = thing[:-1] + "ies" if thing.endswith("y") else thing + "es" if thing.endswith("x") else thing + "s"
    words = (thing, verb) if number == 1 else (plural, _VERBS.get(verb, verb))
    return " ".join(filter(None, (f"{number:,.0f}", *words)))


def format_share(share: float) -> str:
    """Format a probability in per cent, `12.3 %`; values that would round to 0.0 or 100.0 are `<0.1 %` or `>99.9 %`."""
    if share != share:
        return "undefined"
    if share < 0.001:
        return "<0.1 %"
    return ">99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def format_spread(mean: float, std: float) -> str:
    """Format a mean with its standard deviation, `0.812 \u00b1 0.004`; the mean alone where the latter is NaN."""
    if not math.isfinite(mean):
        return "undefined"
    return f"{mean:.3f}" if not math.isfinite(std) else f"{mean:.3f} \u00b1 {std:.3f}"


def fit_file_name(stem: str, ending: str, longest: int = 255) -> str:
    """Build a clean file name of at most `longest` bytes; the stem is truncated if necessary."""
    room = longest - len(ending.encode())
    return clean(stem).replace("/", REPLACEMENT).encode()[:room].decode(errors="ignore") + ending
