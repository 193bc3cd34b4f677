"""The Makefile as users type it, without running anything."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Makefile").read_text("utf-8")
READING = re.search(r"^READING = (.*)$", TEXT, re.M)[1]  # options that several targets pass on
RECIPES = {name: body for name, _, body in re.findall(r"^([a-z-]+):([^\n]*)\n((?:\t[^\n]*\n)+)", TEXT, re.M)}
TAKES = {name: set(words.split()) for name, words in re.findall(r"^takes\.([a-z-]+) = (.*)$", TEXT, re.M)}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments):
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("target", RECIPES)
def test_a_target_takes_what_its_recipe_uses(target):
    recipe = RECIPES[target].replace("$(READING)", READING)
    used = {name for pair in re.findall(r"\$\(([A-Z_]+)\)|call opt,([A-Z0-9_]+)", recipe) for name in pair}
    assert used - {"", "RUN_CXR", "PYTHON", "EXTRA", "CURDIR"} == TAKES.get(target, set())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["train", "EPOCHS=2"], "EPOCHS"), (["records", "MODEL=x"], "MODEL"), (["demo", "SET=a.b=1"], "SET")],
)
def test_what_a_target_does_not_know_is_refused(arguments, name):
    done = make(*arguments)
    assert done.returncode == 2
    assert f"make {arguments[0]} does not take {name}" in done.stderr
    assert not done.stdout


def test_several_targets_take_what_each_of_them_does():
    assert make("records", "train", "MODEL=resnet18", "SIZE=64").returncode == 0


@pytest.mark.parametrize("value", ["a b", 'x="y z" w=1', "it's", "$$HOME", "a;b"])
def test_values_reach_the_command_whole(value):
    done = make("train", f"SET={value}", "MODEL=resnet18")
    line = done.stdout.splitlines()[-1].replace(".venv/bin/cxrkeras", "printf '%s\\n'")
    words = subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words == ["train", "--model", "resnet18", "--set", value.replace("$$", "$")]
