import json
from pathlib import Path

import pytest

from cxrkeras.config import Schedule
from cxrkeras.training.schedules import learning_rate

REFERENCE = json.loads((Path(__file__).parents[1] / "references" / "torch-schedules.json").read_text())


@pytest.mark.parametrize("expected", REFERENCE["schedules"], ids=lambda e: f"{e['name']}-{e['gamma']}")
def test_rates_equal_pytorch(expected):
    schedule = Schedule(**{key: value for key, value in expected.items() if key != "rates"})
    losses, epochs = REFERENCE["validation_losses"], len(expected["rates"])
    for within in (0, 0.4):  # constant within an epoch
        rates = [learning_rate(schedule, 1e-3, e + within, epochs, losses[:e]) for e in range(epochs)]
        assert rates == pytest.approx(expected["rates"], rel=1e-9)


def test_constant_and_cosine():
    assert learning_rate(Schedule(name="constant"), 1e-4, 7, 8, []) == 1e-4
    cosine = Schedule(name="cosine", warm_up=2)
    rates = [learning_rate(cosine, 1.0, time, 10, []) for time in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("num_steps", [1, 4, 7])
def test_warm_up_increases_linearly_from_the_first_step(num_steps):
    cosine = Schedule(name="cosine", warm_up=2)
    times = [epoch + step / num_steps for epoch in range(3) for step in range(num_steps)]
    rates = [learning_rate(cosine, 1.0, time, 10, [], 1 / num_steps) for time in times]
    warming = 2 * num_steps
    assert rates[:warming] == pytest.approx([(step + 1) / warming for step in range(warming)])
    assert rates[warming] == pytest.approx(1)
