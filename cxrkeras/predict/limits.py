"""What limits all answers of a network, and what its numbers mean, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrkeras.scoring.calibration import UNCALIBRATED, explain_numbers
from cxrkeras.scoring.run_files import PUBLISHED

if TYPE_CHECKING:
    from cxrkeras.predict.predictor import Facts

SYNTHETIC = "This network was trained on synthetic phantoms. It is of no use on radiographs of patients."
UNCHECKED = (
    "Nothing checks whether an image is like those of the training: a photograph or a knee is answered like a chest "
    "radiograph."
)


def list_limits(facts: Facts) -> list[str]:
    """List what limits all answers of a network."""
    numbers = [explain_numbers(facts.calibration, facts.fitted_on)] * (facts.calibration == UNCALIBRATED)
    return [SYNTHETIC] * facts.is_synthetic + [UNCHECKED] * (not facts.is_checked) + numbers


def explain_decisions(facts: Facts) -> list[str]:
    """Say what a probability and a threshold are, in a sentence or two each."""
    numbers = (
        explain_numbers(facts.calibration, facts.fitted_on)
        if facts.calibration == UNCALIBRATED
        else f"A probability is calibrated: of the {facts.fitted_on} images with 20 %, about 20 % had the finding. "
        "That holds for similar patients, among whom findings are as frequent."
    )
    origin = (
        f"It is published with the network ({facts.rule})."
        if facts.fitted_on == PUBLISHED
        else f"It was chosen on {facts.fitted_on} images and is often low where a finding is rare."
    )
    return [numbers, f"A threshold is the number at or above which a finding is reported as present. {origin}"]
