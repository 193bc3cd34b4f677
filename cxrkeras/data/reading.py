"""Settings for reading a data set: what its tables leave open, decided before records are made and kept with them."""

from dataclasses import dataclass, fields, replace

from cxrkeras.data.folds import HASHED, check_split_rule
from cxrkeras.data.identity import JOINED
from cxrkeras.errors import InputError

FRONTAL, ALL_VIEWS = VIEWS = ("frontal", "all")
AS_ABSENT, AS_UNKNOWN = BLANKS = ("absent", "unknown")
MAJORITY, ANY_READER = READERS = ("majority", "any")
_CHOICES = {"views": VIEWS, "blank": BLANKS, "readers": READERS}
_OPEN = ("namespace", "ignore", "normal", "blank", "readers")  # taken by some readers only
_ELSEWHERE = ("kind", "split_rule", "split_seed", "namespace")  # kept outside the settings of a source


def _is_namespace(text: str) -> bool:
    return bool(text.strip()) and text != JOINED and ":" not in text


@dataclass(frozen=True)
class Reading:
    """How to read a data set.

    kind: the name of its reader, where the label files fit several; split_rule, split_seed: how a fifth of the patients
    is chosen as the test set, where the set has none; namespace: whose patients a table of one's own has, by default
    the folder's; ignore, normal: columns to ignore and the no-finding label of a table of one's own; views: `frontal`
    leaves out images known to be of another view, `all` keeps them; blank: whether a finding that a report does not
    mention counts as absent or as unknown; readers: whether an image has a label by most or by any of its readers;
    terms: the label set to read it in, `nih`, `common` or a TOML file.

    Raises InputError for a value that is not allowed.
    """

    kind: str | None = None
    split_rule: str = HASHED
    split_seed: int = 0
    namespace: str | None = None
    ignore: tuple[str, ...] = ()
    normal: str | None = None
    views: str = FRONTAL
    blank: str | None = None
    readers: str | None = None
    terms: str | None = None

    def __post_init__(self) -> None:
        check_split_rule(self.split_rule)
        object.__setattr__(self, "ignore", tuple(self.ignore))  # a list in JSON
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) is not None and value not in choices:
                raise InputError(f"{name} must be {' or '.join(choices)}; got {value!r}", option=name)
        if self.namespace is not None and not _is_namespace(self.namespace):
            raise InputError(
                f"namespace must not be blank, {JOINED!r}, or contain a colon; got {self.namespace!r}",
                option="patients",
            )

    def describe(self) -> dict[str, object]:
        """Return the settings of a source that are not the default, as plain values."""
        default = Reading()
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _ELSEWHERE}
        changed = {name: value for name, value in found.items() if value != getattr(default, name)}
        return {name: sorted(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def keep(self, takes: tuple[str, ...]) -> "Reading":
        """Return the settings for a reader, without those that it does not take."""
        return replace(self, **{name: getattr(Reading(), name) for name in _OPEN if name not in takes})

    def check_taken(self, title: str, takes: tuple[str, ...]) -> None:
        """Check that a reader takes the settings given. Raises InputError for the first that it does not take."""
        for name in _OPEN:
            if getattr(self, name) and name not in takes:
                option = "patients" if name == "namespace" else name
                raise InputError(
                    f"{title} is read without {option}: its patients, columns and labels are fixed", option=option
                )
