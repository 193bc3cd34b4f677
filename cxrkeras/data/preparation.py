"""The preparation of images for a network, as saved with records and runs."""

from typing import Literal

import pydantic

from cxrkeras.errors import InputError


class Preparation(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The named steps from a decoded file to the square of grey levels that `images.load_image` returns."""

    crop: Literal["none"] = "none"
    grey: Literal["luma"] = "luma"  # of colour, with the weights of ITU-R 601-2
    window: Literal["header"] = "header"  # of DICOM: the rescale, table or window in its header, as in PS3.3 C.11
    resize: Literal["stretch"] = "stretch"  # to the square; area filter to shrink, bilinear to enlarge


def check_preparation(found: Preparation, wanted: Preparation, place: str, of: str) -> None:
    """Raise InputError unless images at `place` have the preparation that the network named `of` requires."""
    for name, value in wanted:
        if (other := getattr(found, name)) != value:
            raise InputError(
                f"{place} has images with the preparation {name}={other}, but {of} requires {name}={value}"
            )
