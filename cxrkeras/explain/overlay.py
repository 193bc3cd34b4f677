"""Renders heat maps over radiographs."""

import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cxrkeras.data.preparation import Crop, find_crop
from cxrkeras.labels import display_name
from cxrkeras.text import format_share, plain

COLOURS = "inferno"
LETTERS_PER_INCH = 13  # characters of the notice
LONGEST_NOTICE = 2000  # characters
STRONGEST = 0.55  # opacity of the overlay at the maximum of the map


def upsample_map(heat: np.ndarray, size: int) -> np.ndarray:
    """Resize a raw map, float (h, w), bicubically to (size, size), scaled to 0..1; no evidence stays zero."""
    peak = float(heat.max())
    if not np.isfinite(peak) or peak <= 0:
        return np.zeros((size, size), np.float32)
    image = Image.fromarray((heat / peak).astype(np.float32))
    return np.clip(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)


def stretch_map(heat: np.ndarray, shape: tuple[int, int], crop: Crop = "none") -> np.ndarray:
    """Stretch a raw map, float (h, w), over what a network sees of an image of `shape` (H, W); float32 from 0 to 1."""
    if crop != "none":
        framed, place = np.zeros(shape, np.float32), find_crop(shape, crop)
        framed[place] = upsample_map(heat, framed[place].shape[0])
        return framed
    smooth = upsample_map(heat, max(shape))
    if shape[0] == shape[1]:
        return smooth
    return np.asarray(Image.fromarray(smooth).resize(shape[::-1], Image.Resampling.BILINEAR))


def blend_map(grey: np.ndarray, heat: np.ndarray, crop: Crop = "none") -> np.ndarray:
    """Overlay a raw map, float (h, w), on an image, uint8 (H, W); uint8 (H, W, 3)."""
    smooth = stretch_map(heat, grey.shape, crop)
    painted = colormaps[COLOURS](smooth)[..., :3] * 255
    opacity = STRONGEST * smooth[..., None]
    return np.round(grey[..., None] * (1 - opacity) + painted * opacity).astype(np.uint8)


def paint_layer(heat: np.ndarray, size: int, shape: tuple[int, int], crop: Crop = "none") -> Image.Image:
    """Paint a raw map, float (h, w), as an overlay whose opacity increases with the evidence.

    It has (size, size) pixels and is to be stretched over the image; with a crop, the proportions of the image's
    `shape` (H, W). A palette image: the index, 0 to 255, is the evidence and the opacity.
    """
    scale = size / min(shape)
    framed = (size, size) if crop == "none" else (round(shape[0] * scale), round(shape[1] * scale))
    layer = Image.fromarray(np.round(stretch_map(heat, framed, crop) * 255).astype(np.uint8)).convert("P")
    indices = np.arange(256)
    layer.putpalette((colormaps[COLOURS](indices)[:, :3] * 255).round().astype(np.uint8).tobytes())
    layer.info["transparency"] = bytes(indices.tolist())
    return layer


def plot_gradcam(
    grey: np.ndarray,
    maps: dict[str, np.ndarray],
    probs: dict[str, float],
    *,
    title: str,
    notice: str,
    crop: Crop = "none",
) -> Figure:
    """Plot the radiograph next to one overlay per label of `maps`.

    grey: uint8 (H, W), shown unchanged; maps: raw maps (h, w), stretched over it or its crop and each scaled to its own
    maximum; probs: one probability per label.
    """
    num_panels = len(maps) + 1
    num_columns = min(num_panels, 4) if num_panels > 5 else num_panels
    num_rows = -(-num_panels // num_columns)
    height, width = grey.shape
    inches = 3.1 * num_columns
    lines = textwrap.fill(plain(notice, LONGEST_NOTICE), int(inches * LETTERS_PER_INCH))
    tall = (3.1 * height / width + 0.3) * num_rows + 0.4 + 0.15 * len(lines.splitlines())
    figure = Figure(figsize=(inches, tall), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.supxlabel(lines, fontsize=8.5)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    panels[0].imshow(grey, cmap="gray", vmin=0, vmax=255)
    panels[0].set_title("radiograph", fontsize=10)
    painted = None
    for panel, (label, heat) in zip(panels[1:], maps.items(), strict=False):
        panel.imshow(grey, cmap="gray", vmin=0, vmax=255)
        smooth = stretch_map(heat, grey.shape, crop)
        painted = panel.imshow(smooth, cmap=COLOURS, alpha=STRONGEST * smooth, vmin=0, vmax=1)
        panel.set_title(f"{plain(display_name(label))}  {format_share(probs[label])}", fontsize=10)
        if not smooth.any():
            panel.text(
                0.5, 0.03, "no positive evidence", transform=panel.transAxes, ha="center", fontsize=9, color="white",
                bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0},
            )  # fmt: skip
    if painted is not None:
        bar = figure.colorbar(painted, ax=list(panels), fraction=0.02, pad=0.01, ticks=[0, 1])
        bar.ax.set_yticklabels(["none", "most\nin this map"], fontsize=8)
        bar.set_label("evidence for the label", fontsize=8, labelpad=-13)
    return figure
