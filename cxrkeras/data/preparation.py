"""The preparation of images for a network, as saved with records and runs."""

from typing import Literal

import pydantic

from cxrkeras.errors import InputError

Crop = Literal["none", "centre", "centre 7/8"]
_SHARES = {"centre": 1.0, "centre 7/8": 7 / 8}  # of the shorter side


class Preparation(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The named steps from a decoded file to the square of grey levels that `images.load_image` returns.

    The defaults are those of our own networks; others belong to public ones (`models.public`).
    """

    crop: Crop = "none"  # to a square in the middle, of the shorter side or a share of it
    grey: Literal["luma", "mean"] = "luma"  # of colour: with the weights of ITU-R 601-2, or the mean of the channels
    # header: more than 8 bits by the rescale, table or window of DICOM, as in PS3.3 C.11, else by percentiles; off: the
    # full range of the stored bits
    window: Literal["header", "off"] = "header"
    # To the square; stretch: area filter to shrink, bilinear to enlarge; linear: a Gaussian of (factor - 1) / 2 pixels,
    # then linear sampling, mid-grey outside, as scikit-image does; triangle: Pillow's bilinear filter
    resize: Literal["stretch", "linear", "triangle"] = "stretch"


OWN = Preparation()


def describe_preparation(preparation: Preparation) -> str:
    """List the steps, as `crop none, grey luma, window header, resize stretch`."""
    return ", ".join(f"{name} {value}" for name, value in preparation)


def find_crop(shape: tuple[int, int], crop: Crop) -> tuple[slice, slice]:
    """Find the rows and columns of an image of `shape` (height, width) that a network sees."""
    if crop == "none":
        return slice(0, shape[0]), slice(0, shape[1])
    side = max(int(min(shape) * _SHARES[crop]), 1)
    top, left = (length // 2 - side // 2 for length in shape)
    return slice(top, top + side), slice(left, left + side)


def check_preparation(found: Preparation, wanted: Preparation, place: str, of: str) -> None:
    """Raise InputError unless images at `place` have the preparation that the network named `of` requires."""
    for name, value in wanted:
        if (other := getattr(found, name)) != value:
            raise InputError(
                f"{place} has images with the preparation {name}={other}, but {of} requires {name}={value}: "
                f"`cxrkeras records --like {of}` makes the right ones"
            )
