"""Draws a synthetic frontal chest without findings: thorax, lungs, heart, diaphragm, ribs, spine, vessels.

Lengths are fractions of the image side, which represents 400 mm. Brightness is a sum of densities, from 0 for air
outside the body to about 1 for the abdomen, finally exposed to grey levels. As in a real radiograph, the patient's
right is on the left of the image.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cxrkeras import labels

RIGHT, LEFT = -1, 1  # the patient's sides, as the sign of x - midline in the image

Box = tuple[str, float, float, float, float]  # label, x, y, width, height
Length = TypeVar("Length", float, np.ndarray)


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """Smooth step of a distance: 0 below -softness, 1 above +softness."""
    t = distance * np.float32(0.5 / softness)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    smooth = t * np.float32(-2)
    smooth += np.float32(3)
    smooth *= t
    smooth *= t
    return smooth


def ridge(distance: np.ndarray, width: float) -> np.ndarray:
    """Gaussian ridge of a distance, 1 at 0."""
    return np.exp(-np.square(distance * np.float32(1 / width)))


@dataclass(frozen=True)
class Anatomy:
    """What stays the same between the images of a patient."""

    half_width: float  # of the rib cage
    apex: float
    dome: float
    heart: float  # cardiothoracic ratio
    tissue: float  # density of the chest wall
    breast: float
    rib_gap: float
    rib_phase: float

    @classmethod
    def draw(cls, rng: np.random.Generator, is_female: bool) -> "Anatomy":
        return cls(
            half_width=rng.uniform(0.31, 0.38),
            apex=rng.uniform(0.09, 0.15),
            dome=rng.uniform(0.62, 0.71),
            heart=min(max(rng.normal(0.465, 0.035), 0.36), 0.54),
            tissue=rng.uniform(0.38, 0.6),
            breast=rng.uniform(0.05, 0.14) if is_female else 0.0,
            rib_gap=rng.uniform(0.072, 0.088),
            rib_phase=rng.uniform(),
        )


@dataclass
class Scene:
    """An image being drawn: coordinates, the two lungs and the density so far, all float32 (size, size)."""

    size: int
    rng: np.random.Generator
    midline: float
    half_width: float
    apex: float
    dome: dict[int, float]  # height of each hemidiaphragm
    dome_curve: float
    heart: float  # cardiothoracic ratio
    x: np.ndarray  # corrected for the tilt of the patient
    y: np.ndarray
    wall: np.ndarray = field(init=False)  # lateral distance of the chest wall at each pixel's height
    lung: dict[int, np.ndarray] = field(default_factory=dict)  # 0..1
    density: np.ndarray = field(init=False)
    vessels: np.ndarray = field(init=False)  # their contribution to the density
    heart_region: np.ndarray = field(init=False)
    boxes: list[Box] = field(default_factory=list)

    def __post_init__(self):
        self.wall = self.outer(self.y)

    @property
    def hilum(self) -> float:
        return self.apex + 0.52 * (self.dome[RIGHT] - self.apex)

    def lateral(self, side: int) -> np.ndarray:
        """Distance from the midline towards a side; negative on the other side."""
        return (self.x - np.float32(self.midline)) * np.float32(side)

    def outer(self, y: Length) -> Length:
        """Lateral distance of the chest wall at height y."""
        t = np.clip((y - self.apex) / (0.86 - self.apex), 0, 1)
        rest = 1 - t
        return self.half_width * np.sqrt(1 - rest * rest * rest)

    def base(self, side: int, lateral: Length) -> Length:
        """Height of the diaphragm at a lateral distance."""
        across = (lateral - 0.42 * self.half_width) / (0.58 * self.half_width)
        return self.dome[side] + self.dome_curve * np.square(across)

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise of mean 0 and a standard deviation near 1, with a grain of the side divided by `cells`."""
        grid = Image.fromarray(self.rng.standard_normal((cells, cells), np.float32))
        return np.asarray(grid.resize((self.size, self.size), Image.Resampling.BICUBIC)) * np.float32(1.3)

    def place(self, side: int, down: tuple[float, float], across: tuple[float, float]) -> tuple[float, float]:
        """Sample a point in a lung; `down` and `across` are ranges of fractions from apex to base and hilum to wall."""
        lateral = 0.09 + self.rng.uniform(*across) * (0.95 * self.half_width - 0.09)
        y = self.apex + self.rng.uniform(*down) * (self.base(side, lateral) - self.apex)
        return self.midline + side * min(lateral, 0.93 * float(self.outer(y))), y

    def lines(self, strokes: Iterable[tuple[list[tuple[float, float]], float]], blur: float = 0.0) -> np.ndarray:
        """Draw polylines (points, width) with soft edges; 0..1."""
        fine = 2 * self.size
        canvas = Image.new("L", (fine, fine))
        pen = ImageDraw.Draw(canvas)
        for points, width in strokes:
            pen.line([(px * fine, py * fine) for px, py in points], fill=255, width=max(1, round(width * fine)))
        canvas = canvas.reduce(2)
        if blur:
            canvas = canvas.filter(ImageFilter.GaussianBlur(blur * self.size))
        return np.asarray(canvas, np.float32) * np.float32(1 / 255)

    def add(self, opacity: np.ndarray, amount: float) -> None:
        """Add an opacity to the density."""
        self.density += opacity * np.float32(amount)

    def mark(self, label: str, region: np.ndarray) -> None:
        """Store the box of a focal finding: where its region exceeds a quarter of its maximum."""
        is_visible = region > max(0.25 * float(region.max()), 0.02)
        rows, columns = np.flatnonzero(is_visible.any(1)), np.flatnonzero(is_visible.any(0))
        if len(rows):
            left, top = columns[0] / self.size, rows[0] / self.size
            width, height = (columns[-1] + 1) / self.size - left, (rows[-1] + 1) / self.size - top
            self.boxes.append((label, left, top, width, height))

    def either(self) -> int:
        """Sample a side."""
        return LEFT if self.rng.random() < 0.5 else RIGHT


def build_scene(
    size: int,
    rng: np.random.Generator,
    anatomy: Anatomy,
    *,
    is_ap: bool,
    is_cardiomegaly: bool = False,
    is_emphysema: bool = False,
    raised: int | None = None,
) -> Scene:
    """Draw the normal anatomy of an image.

    Cardiomegaly widens the heart to a cardiothoracic ratio of 0.52 to 0.66 (0.36 to 0.54 without; the AP view
    magnifies it by up to 8 %, to at most 0.56). Emphysema lengthens and darkens the lungs, flattens the diaphragm and
    thins the vessels. `raised` is a side whose hemidiaphragm is raised by volume loss.
    """
    x, y = _draw_grid(size, rng)
    inspiration = rng.normal(0, 0.024)
    dome = anatomy.dome + inspiration + (rng.uniform(0.015, 0.06) if is_emphysema else 0.0)
    domes = {RIGHT: dome, LEFT: dome + rng.uniform(0.005, 0.035)}
    if raised is not None:
        domes[raised] -= rng.uniform(0.01, 0.04)
    heart = rng.uniform(0.52, 0.66) if is_cardiomegaly else anatomy.heart
    if is_ap and not is_cardiomegaly:
        heart = min(heart * rng.uniform(1.0, 1.08), 0.56)
    if is_emphysema and not is_cardiomegaly:
        heart *= rng.uniform(0.86, 1.0)
    scene = Scene(
        size=size,
        rng=rng,
        midline=0.5 + rng.normal(0, 0.008),
        half_width=anatomy.half_width,
        apex=anatomy.apex - (0.02 if is_emphysema else 0.0),
        dome=domes,
        dome_curve=rng.uniform(0.015, 0.06) if is_emphysema else rng.uniform(0.05, 0.125),
        heart=heart,
        x=x,
        y=y,
    )
    _draw_trunk(scene, anatomy, lucency=rng.uniform(0.46, 0.57) + (rng.uniform(0.03, 0.08) if is_emphysema else 0.0))
    _draw_bones(scene, anatomy)
    _draw_vessels(scene, rng.uniform(0.02, 0.06) if is_emphysema else rng.uniform(0.08, 0.17))
    _draw_lookalikes(scene)
    if is_cardiomegaly:
        scene.mark(labels.CARDIOMEGALY, scene.heart_region)
    return scene


def _draw_grid(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a tilt, zoom and centre; x and y of each pixel in the coordinates of the patient, float32 (size, size)."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size) + np.float32(0.5 / size)
    tilt, zoom = rng.normal(0, 0.03), rng.uniform(0.92, 1.06)
    centre_x, centre_y = rng.normal(0.5, 0.02), rng.normal(0.5, 0.02)
    dx, dy = (columns - np.float32(centre_x)) / np.float32(zoom), (rows - np.float32(centre_y)) / np.float32(zoom)
    x = np.float32(0.5) + dx * np.float32(np.cos(tilt)) + dy * np.float32(np.sin(tilt))
    y = np.float32(0.5) - dx * np.float32(np.sin(tilt)) + dy * np.float32(np.cos(tilt))
    return x, y


def _draw_trunk(scene: Scene, anatomy: Anatomy, lucency: float) -> None:
    rng, x, y = scene.rng, scene.x, scene.y
    off_midline = np.abs(x - np.float32(scene.midline))
    outer = scene.wall
    flesh = rng.uniform(0.05, 0.09)
    off_neck = np.maximum(off_midline - np.float32(0.09), 0)
    shoulder = np.float32(scene.apex - 0.07) + np.float32(0.62) * off_neck * np.sqrt(off_neck)
    neck = step(0.085 - off_midline, 0.02)
    arms = np.float32(0.3) * np.maximum(np.float32(0.36) - y, 0)
    trunk = np.maximum(step(y - shoulder, 0.02) * step(scene.half_width + flesh + arms - off_midline, 0.015), neck)
    thick = np.float32(anatomy.tissue) + np.float32(0.3) * _dome_profile(off_midline, scene.half_width + flesh)
    scene.density = trunk * thick

    mediastinum = step(0.055 + 0.02 * step(y - 0.2, 0.1) - off_midline, 0.022) * step(y - 0.08, 0.05)
    for side in (RIGHT, LEFT):
        lateral = scene.lateral(side)
        below = scene.base(side, lateral)
        lung = step(outer - lateral, 0.006) * step(lateral - 0.045, 0.02) * step(below - y, 0.006)
        lung *= step(y - scene.apex, 0.01)
        scene.lung[side] = lung
        belly = step(y - below, 0.006) * step(lateral, 0.003) * trunk
        scene.density += belly * np.maximum(np.float32(0.95) - scene.density, 0) * np.float32(0.75)
    lungs = scene.lung[RIGHT] + scene.lung[LEFT]
    scene.density -= lungs * np.float32(lucency) * (np.float32(1) + np.float32(0.05) * scene.noise(6))

    # A third of the heart's width is right of the midline, two thirds left.
    level = scene.dome[LEFT] - 0.05
    width = scene.heart * 2 * float(scene.outer(level))
    middle = scene.midline + width * rng.uniform(0.13, 0.19)
    height = rng.uniform(0.125, 0.16) * (0.8 + 0.45 * scene.heart)
    lean = rng.uniform(0.25, 0.5)
    dx, dy = x - np.float32(middle), y - np.float32(level - 0.35 * height)
    reach = np.hypot(
        (dx - np.float32(0.1) * dy) / (0.5 * width), (dy - np.float32(lean) * dx * np.float32(0.5)) / height
    )
    scene.heart_region = step(1 - reach, 0.045)
    knob = step(1 - np.hypot(x - scene.midline - 0.055, (y - scene.apex - 0.14) / 1.2) / rng.uniform(0.03, 0.045), 0.12)
    solid = np.maximum(np.maximum(scene.heart_region, mediastinum), knob) * trunk
    scene.density += solid * np.maximum(np.float32(rng.uniform(0.74, 0.84)) - scene.density, 0)
    # The trachea is a dark stripe down to the carina.
    scene.add(ridge(off_midline, 0.016) * step(0.36 - y, 0.02), -0.1)
    if anatomy.breast:
        for side in (RIGHT, LEFT):
            reach = np.hypot((scene.lateral(side) - 0.19) / 0.15, (y - scene.dome[side] + 0.04) / 0.14)
            scene.add(step(1 - reach, 0.06) * trunk, anatomy.breast)


def _dome_profile(off_midline: np.ndarray, half_width: float) -> np.ndarray:
    """Thickness of an elliptic trunk, from 1 in the middle to 0 at the side."""
    return np.sqrt(np.maximum(1 - np.square(off_midline * np.float32(1 / half_width)), 0))


def _draw_bones(scene: Scene, anatomy: Anatomy) -> None:
    rng, y = scene.rng, scene.y
    off_midline = np.abs(scene.x - np.float32(scene.midline))
    cage = (
        step(scene.wall + 0.012 - off_midline, 0.006)
        * step(off_midline - 0.03, 0.01)
        * step(y - scene.apex + 0.01, 0.01)
    )
    # Below the diaphragm the abdomen hides the ribs; anteriorly they end in cartilage, which is not visible.
    cage *= np.float32(0.25) + np.float32(0.75) * np.minimum(
        scene.lung[RIGHT] + scene.lung[LEFT] + scene.heart_region, 1
    )
    gap, phase = anatomy.rib_gap, anatomy.rib_phase
    bony = step(off_midline - 0.14, 0.06) * step(0.6 - y, 0.1)
    for slope, bend, share, strength, mask in ((0.35, 1.1, 0.3, 0.075, 1), (-0.75, -0.4, 0.24, 0.05, bony)):
        turn = (y - np.float32(slope) * off_midline - np.float32(bend) * np.square(off_midline)) * np.float32(
            1 / gap
        ) + np.float32(phase)
        off = np.abs(turn - np.floor(turn) - np.float32(0.5))
        rib = step(share - off, 0.07) * (np.float32(0.7) + np.float32(0.6) * step(off - share + 0.12, 0.06))
        scene.add(rib * cage * mask, strength * rng.uniform(0.8, 1.25))
    vertebra = np.abs((y * np.float32(22) + np.float32(phase)) % 1 - np.float32(0.5))
    scene.add(step(0.042 - off_midline, 0.008) * step(0.42 - vertebra, 0.06), rng.uniform(0.03, 0.07))
    strokes = []
    for side in (RIGHT, LEFT):
        start, tip = scene.apex + rng.uniform(0.05, 0.09), scene.apex + rng.uniform(-0.06, 0.03)
        points = [(0.03, start), (0.12, start - 0.005), (0.2, (start + tip) / 2 - 0.015), (0.33, tip)]
        strokes.append(([(scene.midline + side * px, py) for px, py in points], 0.026))
    scene.add(scene.lines(strokes, blur=0.003), rng.uniform(0.07, 0.13))


def _draw_vessels(scene: Scene, strength: float) -> None:
    rng = scene.rng
    strokes = []
    for side in (RIGHT, LEFT):
        root = (scene.midline + side * 0.06, scene.hilum)
        for angle in np.linspace(-1.35, 1.35, 11) + rng.normal(0, 0.08, 11):
            _grow(scene, strokes, root, side, angle, rng.uniform(0.085, 0.13), 0.0125, 3)
    tree = scene.lines(strokes, blur=0.0016)
    hila = sum(
        np.exp(-np.square((scene.lateral(side) - 0.075) / 0.035) - np.square((scene.y - scene.hilum) / 0.055))
        for side in (RIGHT, LEFT)
    )
    lungs = scene.lung[RIGHT] + scene.lung[LEFT]
    scene.vessels = (tree + hila * np.float32(0.6)) * lungs * np.float32(strength)
    scene.density += scene.vessels


def _grow(
    scene: Scene, strokes: list, root: tuple, side: int, angle: float, length: float, width: float, forks: int
) -> None:
    tip = (root[0] + side * length * np.cos(angle), root[1] + length * np.sin(angle))
    strokes.append(([root, tip], width))
    if forks:
        for turn in (scene.rng.uniform(0.15, 0.5), -scene.rng.uniform(0.15, 0.5)):
            _grow(scene, strokes, tip, side, angle + turn, length * 0.74, width * 0.68, forks - 1)


def _draw_lookalikes(scene: Scene) -> None:
    """Draw normal structures and devices that resemble findings: nipples, folds, scars, gastric bubbles, leads."""
    rng = scene.rng
    if rng.random() < 0.6:  # a gastric bubble: as in a hernia, but below the diaphragm
        cx, cy = scene.midline + rng.uniform(0.1, 0.2), scene.dome[LEFT] + rng.uniform(0.05, 0.09)
        reach = np.hypot((scene.x - cx) / rng.uniform(0.04, 0.09), (scene.y - cy) / rng.uniform(0.02, 0.04))
        scene.add(step(1 - reach, 0.15), -rng.uniform(0.15, 0.3))
    if rng.random() < 0.12:  # nipple shadows: faint and low; a nodule is brighter
        for side in (RIGHT, LEFT):
            reach = np.hypot(scene.lateral(side) - rng.uniform(0.17, 0.2), scene.y - scene.dome[side] + 0.05) / 0.015
            scene.add(step(1 - reach, 0.3), rng.uniform(0.06, 0.12))
    if rng.random() < 0.35:  # crowded hila in shallow inspiration: haze as in edema, without septal lines
        strength = rng.uniform(0.04, 0.16)
        for side in (RIGHT, LEFT):
            reach = np.square((scene.lateral(side) - 0.12) / 0.07) + np.square((scene.y - scene.hilum - 0.03) / 0.12)
            scene.add(np.exp(-reach) * scene.lung[side], strength)
    strokes = []
    if rng.random() < 0.15:  # a skin fold: an edge that crosses the chest wall, without a black rim
        side, lateral = scene.either(), rng.uniform(0.17, 0.28)
        x = scene.midline + side * lateral
        strokes.append(([(x, 0.2), (x - side * 0.02, 0.5), (x + side * 0.03, 0.95)], 0.004))
    if rng.random() < 0.2:  # a scar: thinner than plate atelectasis
        cx, cy = scene.place(scene.either(), (0.3, 0.9), (0.2, 0.8))
        dx, dy = rng.uniform(0.015, 0.035), rng.uniform(-0.015, 0.015)
        strokes.append(([(cx - dx, cy - dy), (cx + dx, cy + dy)], 0.005))
    for _ in range(rng.integers(0, 4) if rng.random() < 0.3 else 0):  # monitor leads
        px, py = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.6)
        strokes.append(([(px, py), (px + rng.normal(0, 0.1), py + 0.2), (px + rng.normal(0, 0.2), 1.0)], 0.004))
    if strokes:
        scene.add(scene.lines(strokes), rng.uniform(0.06, 0.12))


def expose(scene: Scene) -> np.ndarray:
    """Convert the density to grey levels, with random exposure, quantum noise and a side marker; uint8."""
    rng = scene.rng
    image = np.clip(scene.density, 0, None)
    image = 1 - np.exp(-image * np.float32(rng.uniform(1.5, 2.3)))
    image *= np.float32(rng.uniform(0.96, 1.12))
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.9, 1.5))
    image = image * np.float32(rng.uniform(210, 250)) + np.float32(rng.uniform(0, 22))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1.5, 4.5))
    marker = [(px + rng.uniform(-0.02, 0.02), py) for px, py in ((0.93, 0.05), (0.93, 0.09), (0.955, 0.09))]
    image += scene.lines([(marker, 0.009)]) * np.float32(150)
    return np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8)
