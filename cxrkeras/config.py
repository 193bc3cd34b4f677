"""One training experiment: its settings, checked, from a TOML file or from the command line."""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field

from cxrkeras import labels
from cxrkeras.errors import InputError

EXPERIMENTS_ROOT = Path("experiments")
CONFIG = "config.json"  # the resolved experiment in a run folder


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    only_for: ClassVar[dict[str, set[str]]] = {}  # keys that only some values of `name` have

    @pydantic.model_validator(mode="after")
    def _refuse_keys_of_others(self):
        for key, names in self.only_for.items():
            if key in self.model_fields_set and self.name not in names:
                raise ValueError(f"{key} is a setting of {' and '.join(sorted(names))}, and name is {self.name}")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _leave_out_keys_of_others(self, serialise):
        foreign = {key for key, names in self.only_for.items() if self.name not in names}
        return {key: value for key, value in serialise(self).items() if key not in foreign}


Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
_ONE_EACH = Field(min_length=len(labels.LABELS), max_length=len(labels.LABELS))


class Data(_Section):
    records: str | None = None  # a name under records/ or a path; without one, the newest
    fold: Annotated[int, Field(ge=0)] = 0  # held out for validation


class Head(_Section):
    """What stands between the last feature map and the logits."""

    pooling: Literal["average", "max", "both"] = "average"
    hidden: Annotated[int, Field(ge=0, le=8192)] = 0  # units of a layer before the logits; 0 leaves it out
    activation: Literal["relu", "silu", "gelu", "leaky_relu", "tanh", "elu"] = "relu"  # of the hidden layer
    dropout: Share = 0.0  # before the logits
    prevalence_bias: bool = False  # start each logit at the logit of its label's prevalence in the training folds


class Model(_Section):
    name: str
    size: Annotated[int, Field(ge=16)] | None = None  # without one, that of the records
    weights: str = "imagenet"  # imagenet, none, or a .keras, .weights.h5 or .safetensors file
    head: Head = Head()


Epochs = Annotated[int, Field(ge=1, le=1000)]


class Phase(_Section):
    """Some epochs in which only a part of the network learns, with an optimiser and a schedule of their own."""

    # Blocks are what lies between two halvings of the feature map; the head always learns.
    layers: Literal["head", "all"] | Annotated[int, Field(ge=1, le=5)] = "all"  # a number: the last blocks
    epochs: Epochs
    learning_rate: LearningRate | None = None  # without one, that of the optimiser


class Training(_Section):
    epochs: Epochs | None = None  # without one, those of the phases, or 8
    phases: list[Phase] = []  # without any, all layers learn all the time
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None  # without one, that of the network's row
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"  # auto follows the device
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    # Epochs of a phase without a better AUC than its best so far before the phase ends; 0 never ends one early
    early_stopping: Annotated[int, Field(ge=0)] = 0
    deterministic: bool = False  # the same history bit for bit on a CPU, for some speed
    keep_state: bool = False  # keep the last state after the end, so that a longer run can resume from it
    gradcam: Annotated[int, Field(ge=0, le=16)] = 0  # validation images whose heat maps TensorBoard shows each epoch

    @pydantic.model_validator(mode="after")
    def _agree_on_epochs(self):
        planned = sum(phase.epochs for phase in self.phases)
        if self.epochs and planned not in (0, self.epochs):
            raise ValueError(f"epochs is {self.epochs} and the phases have {planned}: leave epochs out")
        return self


class Loss(_Section):
    """On logits, for each image and label."""

    name: Literal["bce", "weighted_bce", "focal", "hamming", "asymmetric"] = "bce"
    # of a positive; without any, negatives to positives of the training folds
    weights: Annotated[list[Positive], _ONE_EACH] | None = None
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0  # how much less a sure example counts
    alpha: Share | Annotated[list[Share], _ONE_EACH] = 0.25  # of positives; negatives 1 - it
    gamma_positive: Annotated[float, Field(ge=0, le=10)] = 0.0
    gamma_negative: Annotated[float, Field(ge=0, le=10)] = 4.0
    margin: Share = 0.05  # negatives with a probability below it do not count
    label_smoothing: Share = 0.0
    only_for = {
        "weights": {"weighted_bce"},
        "gamma": {"focal"},
        "alpha": {"focal"},
        "gamma_positive": {"asymmetric"},
        "gamma_negative": {"asymmetric"},
        "margin": {"asymmetric"},
    }


class Optimiser(_Section):
    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: LearningRate = 1e-4
    weight_decay: Share = 0.01
    momentum: Share = 0.9
    nesterov: bool = False
    clip_norm: Annotated[float, Field(ge=0)] = 0.0  # greatest norm of all gradients together; 0 does not clip
    average: Share = 0.0  # decay of the moving average of weights that is scored and saved; 0 takes the weights
    only_for = {"weight_decay": {"adamw"}, "momentum": {"sgd"}, "nesterov": {"sgd"}}

    @pydantic.model_validator(mode="after")
    def _give_nesterov_momentum(self):
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum over 0")
        return self


class Schedule(_Section):
    name: Literal["constant", "step", "exponential", "plateau", "cosine"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5  # factor of the learning rate
    step: Epochs = 2  # epochs from one factor to the next
    patience: Annotated[int, Field(ge=0)] = 2  # epochs without a better validation loss before a factor
    warm_up: Annotated[float, Field(ge=0)] = 1.0  # epochs in which the rate rises, at the start of each phase
    only_for = {
        "gamma": {"step", "exponential", "plateau"},
        "step": {"step"},
        "patience": {"plateau"},
        "warm_up": {"cosine"},
    }


class Sampling(_Section):
    name: Literal["none", "balanced"] = "none"  # balanced: rare labels more often, in an epoch of the same length
    least: Share = 0.0  # how often an image is expected in an epoch, at the least
    most: Annotated[float, Field(gt=1)] | None = None  # and at the most
    only_for = {"least": {"balanced"}, "most": {"balanced"}}


class Augmentation(_Section):
    flip: Annotated[float, Field(ge=0, le=1)] = 0.25  # probability of a mirror image
    rotation: Annotated[float, Field(ge=0, le=180)] = 7.0  # degrees to either side
    translation: Share = 0.0  # share of the side, in each direction
    zoom: Share = 0.0  # up to so much larger or smaller, as a share
    contrast: Share = 0.0  # up to so much more or less contrast, as a share
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0  # greatest standard deviation of added noise, in grey levels


class Experiment(_Section):
    """All settings of one training."""

    data: Data = Data()
    model: Model
    training: Training = Training()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()

    @property
    def phases(self) -> list[Phase]:
        """What learns when, at which rate; a single phase where the file names none."""
        planned = self.training.phases or [Phase(epochs=self.training.epochs or 8)]
        rate = self.optimiser.learning_rate
        return [phase.model_copy(update={"learning_rate": phase.learning_rate or rate}) for phase in planned]


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
        except RecursionError:
            raise InputError(f"{path} is nested too deeply for settings") from None
    for section in Experiment.model_fields:
        if not isinstance(content.get(section, {}), dict):
            raise InputError(f"{source}: {section} must be a section, [{section}]; got {content[section]!r}")
    for section, values in (settings or {}).items():
        content.setdefault(section, {}).update(values)
    for assignment in _split_assignments(overrides):
        key, equals, value = assignment.partition("=")
        *sections, field = key.split(".")
        if not (equals and field and sections and all(sections)):
            raise InputError(f'SET is made of section.key=value, as in SET="training.epochs=2"; got {assignment!r}')
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"{section} is no section: cannot set {key}")
        place[field] = _parse_value(value, is_text=_takes_text([*sections, field]))
    try:
        experiment = Experiment(**content)
    except pydantic.ValidationError as error:
        raise InputError(f"{source}: {_explain(error.errors())}") from None
    _check_warm_up(experiment, source)
    return experiment


def _check_warm_up(experiment: Experiment, source: str) -> None:
    """Refuse a phase without an epoch at its full rate; a run that is done may have one, and still loads."""
    shortest = min(phase.epochs for phase in experiment.phases)
    if experiment.schedule.name == "cosine" and experiment.schedule.warm_up > shortest:
        warm_up = f"schedule.warm_up is {experiment.schedule.warm_up:g} epochs"
        raise InputError(f"{source}: {warm_up} and a phase has {shortest}: shorten the warm-up")


# A quote opens where a value or an entry of a list may begin; elsewhere it is a letter, as in data.records=o'brien
_QUOTED = r"""(?:(?<=[=\s,\[{])|^)(?:"(?:\\.|[^"\\])*"|'[^']*')"""
_ASSIGNMENT = re.compile(rf"""(?:{_QUOTED}|\[(?:{_QUOTED}|[^\]"'])*\]|(?<![=\s])["']|[^\s"'\[])+""")


def _split_assignments(text: str) -> list[str]:
    """The assignments of `a.b=1 c.d="x y" e.f=[1, 2]`: blanks within quotes and brackets do not part them."""
    found = _ASSIGNMENT.findall(text)
    if "".join("".join(found).split()) != "".join(text.split()):  # something was passed over
        raise InputError(f"SET has a quote or bracket that is not closed: {text[:80]!r}")
    return found


def _parse_value(text: str, *, is_text: bool) -> object:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
        return text[1:-1] if is_quoted else text  # a bare word, or a path with backslashes that are no escapes
    except RecursionError:
        raise InputError(f"a setting is nested too deeply: {text[:20]}...") from None
    return text if is_text and not isinstance(value, str) else value  # names may be numbers, as records of 2024


def _takes_text(path: list[str]) -> bool:
    """Whether the setting at this path is a text."""
    section = Experiment
    for name in path:
        field = getattr(section, "model_fields", {}).get(name)
        if field is None:
            return False
        section = field.annotation
    return section in (str, str | None)


def _explain(errors: list[dict]) -> str:
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = _name_place(error)
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}" if place else str(error["ctx"]["error"])
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f", got {error['input']!r}"
        allowed = " or ".join(other["msg"] for other in errors if _name_place(other) == place)  # each kind of value's
        return f"{place}: {allowed}{given}"
    section = Experiment
    for part in error["loc"][:-1]:
        section = Phase if isinstance(part, int) else section.model_fields[part].annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key {place}; {hint}allowed are {', '.join(section.model_fields)}"


def _name_place(error: dict) -> str:
    """Of the parts of an error's place, pydantic's own names for kinds of values, as `list[float]`, are left out."""
    return ".".join(str(part) for part in error["loc"] if isinstance(part, int) or part.isidentifier())


def dump_experiment(experiment: Experiment) -> dict:
    """The experiment as plain JSON values."""
    return json.loads(experiment.model_dump_json())


def format_experiment(experiment: Experiment) -> str:
    """The experiment as a TOML file that `load_experiment` reads; what is None is left out."""
    lines = []

    def add(header: str, section: dict) -> None:
        lines.append(f"\n{header}" if lines else header)
        for key, value in section.items():
            if value is not None and not _is_nested(value):
                lines.append(f"{key} = {json.dumps(value)}")

    for name, section in dump_experiment(experiment).items():
        add(f"[{name}]", section)
        for key, value in section.items():
            if isinstance(value, dict):
                add(f"[{name}.{key}]", value)
            elif _is_nested(value):
                for entry in value:
                    add(f"[[{name}.{key}]]", entry)
    return "\n".join(lines) + "\n"


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
