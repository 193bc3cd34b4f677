"""Draws the radiographic sign of each finding into a synthetic chest.

Each docstring gives the range of the sign, which overlaps with normal anatomy or with one of the look-alikes in
`anatomy`. Lengths are fractions of a side of 400 mm, strengths are densities (see `anatomy`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cxrkeras import labels
from cxrkeras.phantoms.anatomy import LEFT, RIGHT, Anatomy, Scene, build_scene, expose, ridge, step


def _atelectasis(scene: Scene, side: int) -> None:
    """One or two plates, 6 to 11 mm thick and 50 to 90 mm long, in the lower half; a raised hemidiaphragm."""
    rng = scene.rng
    strokes = []
    cx, cy = scene.place(side, (0.55, 0.85), (0.3, 0.6))
    for plate in range(rng.integers(1, 3)):
        length, angle = rng.uniform(0.062, 0.11), rng.uniform(-0.35, 0.35)
        dx, dy = length * np.cos(angle), length * np.sin(angle)
        y = cy - plate * rng.uniform(0.03, 0.05)
        strokes.append(
            ([(cx - dx, y - dy), (cx, y + rng.uniform(-0.006, 0.006)), (cx + dx, y + dy)], rng.uniform(0.015, 0.027))
        )
    plates = scene.lines(strokes, blur=0.003) * scene.lung[side]
    scene.add(plates, rng.uniform(0.26, 0.4))
    scene.mark(labels.ATELECTASIS, plates)


def _consolidation(scene: Scene) -> None:
    """A dense, homogeneous, cloudy opacity of 60 to 100 mm that hides the vessels, with air bronchograms."""
    rng, side = scene.rng, scene.either()
    cx, cy = scene.place(side, (0.25, 0.8), (0.3, 0.7))
    radius = rng.uniform(0.075, 0.125)
    reach = np.hypot((scene.x - cx) / radius, (scene.y - cy) / (radius * rng.uniform(0.8, 1.2))) + 0.16 * scene.noise(
        14
    )
    cloud = step(1 - reach, 0.3) * scene.lung[side]
    root = (cx - side * radius * 0.9, cy - radius * 0.3)
    bronchi = []
    for turn in np.linspace(-0.7, 0.7, int(rng.integers(3, 5))):
        fork = (root[0] + side * radius * 0.8 * np.cos(turn), root[1] + radius * 0.8 * np.sin(turn) + 0.2 * radius)
        for bend in (-0.35, 0.35):
            tip = (fork[0] + side * radius * 0.8 * np.cos(turn + bend), fork[1] + radius * 0.8 * np.sin(turn + bend))
            bronchi.append(([root, fork, tip], 0.009))
    scene.density += cloud * (np.float32(rng.uniform(0.24, 0.36)) - np.float32(0.2) * scene.lines(bronchi, blur=0.002))
    scene.mark(labels.CONSOLIDATION, cloud)


def _edema(scene: Scene) -> None:
    """Perihilar haze in a bat-wing pattern, and short horizontal septal lines at both bases."""
    rng = scene.rng
    strength = rng.uniform(0.14, 0.26)
    mottle = np.clip(0.75 + 0.4 * scene.noise(40), 0, 2)
    for side in (RIGHT, LEFT):
        lateral = scene.lateral(side)
        wing = np.exp(-np.square((lateral - 0.13) / 0.075) - np.square((scene.y - scene.hilum - 0.03) / 0.13))
        scene.add(wing * mottle * scene.lung[side], strength)
        strokes = []
        for _ in range(rng.integers(7, 12)):
            y = scene.dome[side] - rng.uniform(-0.02, 0.17)
            wall = scene.midline + side * (float(scene.outer(y)) - 0.008)
            strokes.append(
                ([(wall, y), (wall - side * rng.uniform(0.03, 0.055), y + rng.uniform(-0.003, 0.003))], 0.004)
            )
        scene.add(scene.lines(strokes) * scene.lung[side], rng.uniform(0.2, 0.32))


def _effusion(scene: Scene) -> None:
    """Fluid that blunts the costophrenic angle and rises along the wall as a meniscus; 15 to 90 mm deep laterally."""
    rng, side = scene.rng, scene.either()
    lateral = scene.lateral(side)
    corner = float(scene.base(side, 0.95 * scene.half_width))
    level = corner - rng.uniform(0.05, 0.2)
    climb = np.exp(-(scene.wall - lateral) / rng.uniform(0.025, 0.05))
    fluid = step(scene.y - (level - rng.uniform(0.05, 0.09) * climb + 0.03), 0.012) * scene.lung[side]
    scene.density += fluid * np.maximum(np.float32(rng.uniform(0.78, 0.92)) - scene.density, 0)
    scene.mark(labels.EFFUSION, fluid)


def _fibrosis(scene: Scene) -> None:
    """A coarse net of fine lines, with meshes of 10 to 16 mm, near the wall and the base of both lungs."""
    rng = scene.rng
    net = np.clip(1 - np.abs(scene.noise(int(rng.integers(25, 40)))) * 2.4, 0, 1)
    strength = rng.uniform(0.3, 0.46)
    for side in (RIGHT, LEFT):
        lateral = scene.lateral(side)
        rim = np.exp(-np.maximum(scene.wall - lateral, 0) / 0.1)
        low = step(scene.y - (scene.dome[side] - rng.uniform(0.2, 0.32)), 0.08)
        scene.add(net * rim * low * scene.lung[side], strength)


def _hernia(scene: Scene) -> None:
    """A round bubble of 30 to 60 mm behind the heart: bright wall, air above a fluid level."""
    rng = scene.rng
    cx = scene.midline + rng.uniform(-0.01, 0.07)
    cy = scene.dome[LEFT] - rng.uniform(0.0, 0.07)
    radius = rng.uniform(0.04, 0.075)
    reach = np.hypot(scene.x - cx, (scene.y - cy) / 0.9) / radius
    inside = step(1 - reach, 0.1)
    level = step(scene.y - cy - rng.uniform(-0.2, 0.4) * radius, 0.006)
    scene.density += inside * ((1 - level) * np.float32(-rng.uniform(0.14, 0.24)) + level * np.float32(0.05))
    scene.add(ridge(reach - 1, 0.1), rng.uniform(0.08, 0.14))
    scene.mark(labels.HERNIA, inside)


def _infiltration(scene: Scene) -> None:
    """A cluster of 14 to 30 fluffy spots of 6 to 12 mm that merge into an ill-defined opacity."""
    rng, side = scene.rng, scene.either()
    cx, cy = scene.place(side, (0.3, 0.8), (0.25, 0.7))
    spread = rng.uniform(0.04, 0.065)
    spots = []
    for _ in range(rng.integers(14, 31)):
        px, py, radius = rng.normal(cx, spread), rng.normal(cy, spread), rng.uniform(0.0075, 0.015)
        spots.append(([(px - radius / 2, py), (px + radius / 2, py)], 2 * radius))
    cluster = scene.lines(spots, blur=0.0065) * scene.lung[side]
    scene.add(cluster, rng.uniform(0.28, 0.44))
    scene.mark(labels.INFILTRATION, cluster)


def _round(scene: Scene, label: str, radius: float, strength: float, lobes: float) -> None:
    side = scene.either()
    cx, cy = scene.place(side, (0.12, 0.85), (0.1, 0.85))
    dx, dy = scene.x - cx, scene.y - cy
    angle = np.arctan2(dy, dx)
    edge = 1 + lobes * np.sin(3 * angle + scene.rng.uniform(0, 6)) + lobes * np.sin(5 * angle + scene.rng.uniform(0, 6))
    reach = np.hypot(dx, dy) / (radius * edge)
    lump = step(1 - reach, max(0.18, 0.004 / radius)) * (0.8 + 0.2 * np.clip(1 - reach * reach, 0, 1))
    lump *= 0.35 + 0.65 * (scene.lung[RIGHT] + scene.lung[LEFT])
    scene.add(lump, strength)
    scene.mark(label, lump)


def _mass(scene: Scene) -> None:
    """A lobulated, well-defined opacity of 31 to 60 mm."""
    rng = scene.rng
    _round(scene, labels.MASS, rng.uniform(0.039, 0.075), rng.uniform(0.32, 0.48), 0.07)


def _nodule(scene: Scene) -> None:
    """One to three round, well-defined opacities of 12 to 29 mm."""
    rng = scene.rng
    for _ in range(rng.integers(1, 4)):
        _round(scene, labels.NODULE, rng.uniform(0.015, 0.036), rng.uniform(0.32, 0.5), 0.02)


def _pleural_thickening(scene: Scene) -> None:
    """A dense, wavy rim, 9 to 18 mm thick, along a third to two thirds of the lateral wall."""
    rng, side = scene.rng, scene.either()
    start = rng.uniform(0.1, 0.4)
    length = rng.uniform(0.3, 0.55)
    height = scene.dome[side] - scene.apex
    t = (scene.y - scene.apex) / height
    depth = scene.wall - scene.lateral(side)
    thickness = rng.uniform(0.022, 0.044) * (1 + 0.3 * scene.noise(9))
    rim = step(thickness - depth, 0.004) * step(t - start, 0.05) * step(start + length - t, 0.05) * scene.lung[side]
    scene.add(rim, rng.uniform(0.32, 0.46))
    scene.mark(labels.PLEURAL_THICKENING, rim)


def _pneumonia(scene: Scene) -> None:
    """A patchy lobe with a sharp border at a fissure that fades out on the other side."""
    rng, side = scene.rng, scene.either()
    cx, cy = scene.place(side, (0.35, 0.6), (0.35, 0.65))
    slope = rng.uniform(-0.25, 0.25)
    is_upper = rng.random() < 0.5
    fissure = (scene.y - cy) - np.float32(slope) * (scene.x - cx)
    depth = -fissure if is_upper else fissure
    fade = np.exp(-np.maximum(depth, 0) / rng.uniform(0.06, 0.1))
    across = np.exp(-(np.square((scene.x - cx) / rng.uniform(0.08, 0.12)) ** 2))
    lobe = step(depth, 0.005) * fade * across * np.clip(0.8 + 0.3 * scene.noise(24), 0.2, 1.4) * scene.lung[side]
    scene.add(lobe, rng.uniform(0.26, 0.42))
    scene.mark(labels.PNEUMONIA, lobe)


def _pneumothorax(scene: Scene) -> None:
    """A rim of 10 to 35 mm at the wall and apex, darker and without vessels, beyond a fine pleural line."""
    rng, side = scene.rng, scene.either()
    height = scene.dome[side] - scene.apex
    t = np.clip((scene.y - scene.apex) / height, 0, 1)
    width = rng.uniform(0.03, 0.085) * (1 - rng.uniform(0.3, 0.8) * t)
    depth = np.minimum(scene.wall - scene.lateral(side), (scene.y - scene.apex) * 1.2)
    inward = depth - width
    rim = step(-inward, 0.004) * scene.lung[side]
    air = np.float32(rng.uniform(0.05, 0.12))
    scene.density -= rim * (scene.vessels + air)
    scene.add(ridge(inward, 0.0045) * scene.lung[side] * step(0.95 - t, 0.1), rng.uniform(0.13, 0.22))
    scene.mark(labels.PNEUMOTHORAX, rim)


# In drawing order. Atelectasis is drawn on the side of the raised hemidiaphragm; cardiomegaly and emphysema change the
# anatomy itself.
_SIGNS: dict[str, Callable[[Scene], None]] = {
    labels.FIBROSIS: _fibrosis,
    labels.EDEMA: _edema,
    labels.INFILTRATION: _infiltration,
    labels.PNEUMONIA: _pneumonia,
    labels.CONSOLIDATION: _consolidation,
    labels.NODULE: _nodule,
    labels.MASS: _mass,
    labels.HERNIA: _hernia,
    labels.PLEURAL_THICKENING: _pleural_thickening,
    labels.PNEUMOTHORAX: _pneumothorax,
    labels.EFFUSION: _effusion,
}


def draw_chest(
    size: int, rng: np.random.Generator, anatomy: Anatomy, findings: frozenset[str], *, is_ap: bool
) -> tuple[np.ndarray, list[tuple[str, float, float, float, float]]]:
    """Draw an image with the signs of `findings`.

    Returns the image, uint8 (size, size), and the boxes of the focal findings: label, x, y, width and height as
    fractions of the side. Edema, emphysema and fibrosis are diffuse and have no boxes.
    """
    raised = (LEFT if rng.random() < 0.5 else RIGHT) if labels.ATELECTASIS in findings else None
    scene = build_scene(
        size,
        rng,
        anatomy,
        is_ap=is_ap,
        is_cardiomegaly=labels.CARDIOMEGALY in findings,
        is_emphysema=labels.EMPHYSEMA in findings,
        raised=raised,
    )
    if raised is not None:
        _atelectasis(scene, raised)
    for label, draw in _SIGNS.items():
        if label in findings:
            draw(scene)
    return expose(scene), scene.boxes


def draw_file(task: tuple[Path, int, int, dict]) -> list[tuple]:
    """Draw and save the image of a row of `sample_findings`; task: (folder, size, seed, row).

    Returns its boxes, each preceded by the image id. Defined here rather than next to its caller, because worker
    processes import this module, which is light.
    """
    folder, size, seed, row = task
    anatomy = Anatomy.draw(np.random.default_rng([seed, 1, row["patient_id"]]), row["sex"] == "F")
    rng = np.random.default_rng([seed, 2, row["patient_id"], row["follow_up"]])
    findings = frozenset(label for label in labels.NIH.findings if row[label])
    image, boxes = draw_chest(size, rng, anatomy, findings, is_ap=row["view"] == "AP")
    Image.fromarray(image).save(folder / row["image_id"], compress_level=1)
    return [(row["image_id"], *box) for box in boxes]
