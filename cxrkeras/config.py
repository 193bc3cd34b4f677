"""One training experiment: its settings, checked, from a TOML file or from the command line."""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from cxrkeras.errors import InputError

EXPERIMENTS_ROOT = Path("experiments")


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(_Section):
    records: str | None = None  # a name under records/ or a path; without one, the newest
    fold: Annotated[int, Field(ge=0)] = 0  # held out for validation


class Head(_Section):
    """What stands between the last feature map and the logits."""

    pooling: Literal["average", "max", "both"] = "average"
    hidden: Annotated[int, Field(ge=0, le=8192)] = 0  # units of a layer before the logits; 0 leaves it out
    activation: Literal["relu", "silu", "gelu", "leaky_relu", "tanh", "elu"] = "relu"  # of the hidden layer
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # before the logits
    prevalence_bias: bool = False  # start each logit at the logit of its label's prevalence in the training folds


class Model(_Section):
    name: str
    size: Annotated[int, Field(ge=16)] | None = None  # without one, that of the records
    weights: str = "imagenet"  # imagenet, none, or a .keras, .weights.h5 or .safetensors file
    head: Head = Head()


class Training(_Section):
    epochs: Annotated[int, Field(ge=1, le=1000)] = 8
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None  # without one, that of the network's row
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"  # auto follows the device
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    early_stopping: Annotated[int, Field(ge=0)] = 0  # epochs without a better AUC before stopping; 0 never stops


class Optimiser(_Section):
    name: Literal["adam"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-4


class Schedule(_Section):
    name: Literal["constant", "exponential"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5  # exponential: the factor of the learning rate an epoch


class Augmentation(_Section):
    flip: Annotated[float, Field(ge=0, le=1)] = 0.25  # probability of a mirror image
    rotation: Annotated[float, Field(ge=0, le=180)] = 7.0  # degrees to either side


class Experiment(_Section):
    """All settings of one training."""

    data: Data = Data()
    model: Model
    training: Training = Training()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()


def load_experiment(name: str | None = None, *, settings: dict | None = None, overrides: str = "") -> Experiment:
    """Resolve an experiment.

    `name` is that of a file under experiments/ or a path, None for the defaults; `settings` are laid over it as
    nested dictionaries, then `overrides` such as `training.epochs=2 optimiser.learning_rate=3e-4`. Raises InputError
    that names the file, the key, the value and what is allowed.
    """
    source, content = "the settings", {}
    if name:
        path = next((p for p in (EXPERIMENTS_ROOT / f"{name}.toml", Path(name)) if p.is_file()), None)
        if path is None:
            known = sorted(p.stem for p in EXPERIMENTS_ROOT.glob("*.toml"))
            near = difflib.get_close_matches(name, known)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(
                f"no experiment {name!r}; {hint}there are {', '.join(known) or 'none'} in {EXPERIMENTS_ROOT}"
            )
        source = str(path)
        try:
            content = tomllib.loads(path.read_text("utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not TOML: {error}") from None
    for section in Experiment.model_fields:
        if not isinstance(content.get(section, {}), dict):
            raise InputError(f"{source}: {section} must be a section, [{section}]; got {content[section]!r}")
    for section, values in (settings or {}).items():
        content.setdefault(section, {}).update(values)
    for assignment in overrides.split():
        key, equals, value = assignment.partition("=")
        *sections, field = key.split(".")
        if not (equals and sections):
            raise InputError(f'SET is made of section.key=value, as in SET="training.epochs=2"; got {assignment!r}')
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"{section} is no section: cannot set {key}")
        place[field] = _parse_value(value)
    try:
        return Experiment(**content)
    except pydantic.ValidationError as error:
        raise InputError(f"{source}: {_explain(error.errors()[0])}") from None


def _parse_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word


def _explain(error: dict) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f", got {error['input']!r}"
        return f"{place}: {error['msg']}{given}"
    section = Experiment
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key {place}; {hint}allowed are {', '.join(section.model_fields)}"


def dump_experiment(experiment: Experiment) -> dict:
    """The experiment as plain JSON values."""
    return json.loads(experiment.model_dump_json())
