"""The table of public chest X-ray networks: where each is, and what is known of it."""

import difflib
import math
import tomllib
from functools import cache
from importlib import resources
from typing import Any, Self

import pydantic

from cxrkeras.data.preparation import Preparation
from cxrkeras.errors import InputError

UNKNOWN_LICENCE = "unknown"


class PublicNetwork(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A row of `public_networks.toml`, which explains its fields."""

    network: str
    size: int
    address: str
    page: str
    trained_on: str
    split: str
    labels: tuple[str, ...]
    preparation: Preparation
    citation: str
    file: str = ""
    licence: str = UNKNOWN_LICENCE
    sha256: str = ""
    operating_points: tuple[float, ...] = ()
    is_twice: bool = False
    scaling: tuple[float, float] | None = None
    published: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _check_points(self) -> Self:
        if len(self.operating_points) not in (0, len(self.labels)):
            raise ValueError("as many operating points as labels")
        return self

    @property
    def file_name(self) -> str:
        """The name of the file in the cache."""
        return self.file or self.address.rpartition("/")[2]

    @property
    def outputs(self) -> list[int]:
        """The places of the outputs that were trained."""
        return [place for place, label in enumerate(self.labels) if label]

    @property
    def thresholds(self) -> dict[str, float | None]:
        """The published operating point of each trained output on its sigmoid; None where there is none."""
        points = self.operating_points or (0.0,) * len(self.labels)
        found: dict[str, float | None] = {}
        for place in self.outputs:
            point = points[place]
            # What lies between 0.5 and 0.7311 in all outputs is a sigmoid of a sigmoid: undo the second
            found[self.labels[place]] = (math.log(point / (1 - point)) if self.is_twice else point) if point else None
        return found

    @property
    def rule(self) -> str:
        """Where the thresholds are from, in words."""
        if not self.operating_points:
            return "none published"
        twice = ", a sigmoid taken twice undone" if self.is_twice else ""
        return f"operating points published with the network{twice}"


@cache
def load_public_networks() -> dict[str, PublicNetwork]:
    """Load the table by name."""
    text = resources.files("cxrkeras.models").joinpath("public_networks.toml").read_text("utf-8")
    return {name: PublicNetwork(**row) for name, row in tomllib.loads(text).items()}


def find_public(name: str) -> PublicNetwork:
    """Return the row of a public network. Raises InputError with the nearest name if it is unknown."""
    networks = load_public_networks()
    if name not in networks:
        near = difflib.get_close_matches(name.lower(), networks, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no public network {name!r}; {hint}there are {', '.join(networks)}")
    return networks[name]
