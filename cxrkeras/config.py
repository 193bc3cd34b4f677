"""The validated settings of a training experiment, from a TOML file or the command line."""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import pydantic
from pydantic import Field
from pydantic_core import ErrorDetails

from cxrkeras.errors import InputError

EXPERIMENTS_ROOT = Path("experiments")
_SHIPPED = "share/cxrkeras/experiments"  # where an installation keeps them
CONFIG = "config.json"  # the resolved experiment in a run folder
Value = TypeVar("Value")


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Choice(_Section):
    """A section whose `name` chooses among alternatives, some of which have settings of their own."""

    name: str
    only_for: ClassVar[dict[str, set[str]]] = {}  # keys that only some values of `name` have

    @pydantic.model_validator(mode="after")
    def _refuse_unused_keys(self) -> Self:
        for key, names in self.only_for.items():
            if key in self.model_fields_set and self.name not in names:
                raise ValueError(f"{key} is a setting of {' and '.join(sorted(names))}, and name is {self.name}")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _leave_out_unused_keys(self, serialise: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {key for key, names in self.only_for.items() if self.name not in names}
        return {key: value for key, value in serialise(self).items() if key not in unused}


def _require_resolved(value: Value | None, key: str) -> Value:
    if value is None:
        raise ValueError(f"{key} is not resolved yet: call training.resolve.resolve_experiment first")
    return value


Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
LearningRate = Annotated[float, Field(gt=0, le=10)]


class Data(_Section):
    records: str | None = None  # a name under records/ or a path; by default the newest
    fold: Annotated[int, Field(ge=0)] = 0  # held out for validation


Uncertain = Literal["ignore", "positive", "negative"]


class Labels(_Section):
    """The labels that a network learns, and how uncertain labels count in the training loss (only there)."""

    use: Annotated[list[str], Field(min_length=1)] | None = None  # labels of the records, in order; by default all
    uncertain: Uncertain = "ignore"
    uncertain_by_label: dict[str, Uncertain] = {}  # overrides `uncertain`


class Head(_Section):
    """The layers between the last feature map and the logits."""

    pooling: Literal["average", "max", "both"] = "average"
    hidden: Annotated[int, Field(ge=0, le=8192)] = 0  # units of a layer before the logits; 0 leaves it out
    activation: Literal["relu", "silu", "gelu", "leaky_relu", "tanh", "elu"] = "relu"  # of the hidden layer
    dropout: Share = 0.0  # before the logits
    prevalence_bias: bool = False  # start each logit at the logit of its label's prevalence in the training folds


class Model(_Section):
    name: str
    size: Annotated[int, Field(ge=16)] | None = None  # side of the images in pixels; by default that of the records
    weights: str = "imagenet"  # imagenet, none, or a .keras, .weights.h5 or .safetensors file
    head: Head = Head()

    @property
    def resolved_size(self) -> int:
        """`size` of a resolved experiment. Raises ValueError before it is resolved."""
        return _require_resolved(self.size, "model.size")


Epochs = Annotated[int, Field(ge=1, le=1000)]


class Phase(_Section):
    """Some epochs in which only certain layers are trained, with their own optimiser and schedule."""

    # A block lies between two halvings of the feature map; the head is always trained.
    layers: Literal["head", "all"] | Annotated[int, Field(ge=1, le=5)] = "all"  # a number: so many of the last blocks
    epochs: Epochs
    learning_rate: LearningRate | None = None  # by default that of the optimiser

    @property
    def resolved_learning_rate(self) -> float:
        """`learning_rate` of a phase of `Experiment.phases`. Raises ValueError for a phase that has none of its own."""
        return _require_resolved(self.learning_rate, "training.phases.learning_rate")


class Training(_Section):
    epochs: Epochs | None = None  # by default the sum over the phases, or 8
    phases: list[Phase] = []  # by default all layers are trained throughout
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None  # by default that of the network
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"  # auto depends on the device
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    early_stopping: Annotated[int, Field(ge=0)] = 0  # epochs without a better AUC after which a phase ends; 0: never
    deterministic: bool = False  # bitwise reproducible on a CPU, but slower
    keep_state: bool = False  # keep the final training state, so that a longer run can resume from it
    gradcam: Annotated[int, Field(ge=0, le=16)] = 0  # validation images whose heat maps TensorBoard shows each epoch

    @property
    def resolved_epochs(self) -> int:
        """`epochs` of a resolved experiment. Raises ValueError before it is resolved."""
        return _require_resolved(self.epochs, "training.epochs")

    @property
    def resolved_batch_size(self) -> int:
        """`batch_size` of a resolved experiment. Raises ValueError before it is resolved."""
        return _require_resolved(self.batch_size, "training.batch_size")

    @pydantic.model_validator(mode="after")
    def _check_epochs(self) -> Self:
        planned = sum(phase.epochs for phase in self.phases)
        if self.epochs and planned not in (0, self.epochs):
            raise ValueError(f"epochs is {self.epochs} and the phases have {planned}: leave epochs out")
        return self


LOSSES = ("bce", "weighted_bce", "focal", "hamming", "asymmetric")
REGISTERED_LOSSES: dict[str, Callable[..., Any]] = {}


def register_loss(name: str, elements: Callable[..., Any]) -> None:
    """Register a custom loss under a name that experiments in this process can use.

    elements: a function of targets (N, L), from 0 to 1, and logits (N, L), in Keras operations, that returns the loss
    of each element, (N, L). Elements whose label is not known are masked by the caller. Raises InputError for a name
    that is taken or not an identifier.
    """
    if name in LOSSES or not name.isidentifier():
        raise InputError(
            f"the name of a custom loss must be an identifier, and none of {', '.join(LOSSES)}; got {name!r}"
        )
    if not callable(elements):
        raise InputError(f"the loss {name!r} needs a function of targets and logits; got {elements!r}")
    REGISTERED_LOSSES[name] = elements


class Loss(_Choice):
    """The loss on the logits of each image and label."""

    name: str = "bce"  # one of LOSSES or a registered one
    # Weight of the positives of each label; by default the ratio of negatives to positives in the training folds
    weights: Annotated[list[Positive], Field(min_length=1)] | None = None
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0  # focusing: how strongly easy examples are down-weighted
    alpha: Share | Annotated[list[Share], Field(min_length=1)] = 0.25  # weight of positives; of negatives 1 - alpha
    gamma_positive: Annotated[float, Field(ge=0, le=10)] = 0.0
    gamma_negative: Annotated[float, Field(ge=0, le=10)] = 4.0
    margin: Share = 0.05  # negatives with a lower probability are ignored
    label_smoothing: Share = 0.0
    only_for = {
        "weights": {"weighted_bce"},
        "gamma": {"focal"},
        "alpha": {"focal"},
        "gamma_positive": {"asymmetric"},
        "gamma_negative": {"asymmetric"},
        "margin": {"asymmetric"},
    }


class Optimiser(_Choice):
    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: LearningRate = 1e-4
    weight_decay: Share = 0.01
    momentum: Share = 0.9
    nesterov: bool = False
    clip_norm: Annotated[float, Field(ge=0)] = 0.0  # maximum global norm of the gradients; 0: no clipping
    average: Share = 0.0  # decay of the moving average of the weights, which is scored and saved; 0: no average
    only_for = {"weight_decay": {"adamw"}, "momentum": {"sgd"}, "nesterov": {"sgd"}}

    @pydantic.model_validator(mode="after")
    def _check_nesterov(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum over 0")
        return self


class Schedule(_Choice):
    name: Literal["constant", "step", "exponential", "plateau", "cosine"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5  # factor by which the learning rate decays
    step: Epochs = 2  # epochs between decays
    patience: Annotated[int, Field(ge=0)] = 2  # epochs without a better validation loss before a decay
    warm_up: Annotated[float, Field(ge=0)] = 1.0  # epochs of linear increase at the start of each phase
    only_for = {
        "gamma": {"step", "exponential", "plateau"},
        "step": {"step"},
        "patience": {"plateau"},
        "warm_up": {"cosine"},
    }


class Sampling(_Choice):
    name: Literal["none", "balanced"] = "none"  # balanced: rare labels more often, in an epoch of the same length
    least: Share = 0.0  # minimum expected number of copies of an image in an epoch
    most: Annotated[float, Field(gt=1)] | None = None  # maximum expected number of copies
    sources: Literal["given", "equal"] = "given"  # equal: each source of joined records as often as the others
    only_for = {"least": {"balanced"}, "most": {"balanced"}}


class Augmentation(_Section):
    flip: Annotated[float, Field(ge=0, le=1)] = 0.25  # probability of a horizontal flip
    rotation: Annotated[float, Field(ge=0, le=180)] = 7.0  # maximum angle in degrees, either way
    translation: Share = 0.0  # maximum shift along each axis, as a share of the image's side
    zoom: Share = 0.0  # maximum relative change in size, either way
    contrast: Share = 0.0  # maximum relative change in contrast, either way
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0  # maximum standard deviation of added noise, in grey levels


class Experiment(_Section):
    """All settings of a training."""

    data: Data = Data()
    labels: Labels = Labels()
    model: Model
    training: Training = Training()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()

    @property
    def phases(self) -> list[Phase]:
        """The phases with their learning rates; a single phase if the file names none."""
        planned = self.training.phases or [Phase(epochs=self.training.epochs or 8)]
        rate = self.optimiser.learning_rate
        return [phase.model_copy(update={"learning_rate": phase.learning_rate or rate}) for phase in planned]


def load_experiment(
    name: str | None = None, *, settings: Mapping[str, Mapping[str, Any]] | None = None, overrides: str = ""
) -> Experiment:
    """Load and validate an experiment.

    name: a file under experiments/ without its suffix, or a path; None for the defaults. `settings`, by section and
    key, override the file, and `overrides`, such as `training.epochs=2 optimiser.learning_rate=3e-4`, override both.
    Raises InputError that names the file, the key, the value and what is allowed.
    """
    source, content = "the settings", {}
    if name:
        path = find_experiment(name)
        source, content = str(path), _read_file(path)
    for section in Experiment.model_fields:
        if not isinstance(content.get(section, {}), dict):
            raise InputError(f"{source}: {section} must be a section, [{section}]; got {content[section]!r}")
    for section, values in (settings or {}).items():
        content.setdefault(section, {}).update(values)
    for assignment in _split_assignments(overrides):
        _assign(content, assignment)
    try:
        experiment = Experiment(**content)
    except pydantic.ValidationError as error:
        raise InputError(f"{source}: {_explain(error.errors())}") from None
    _check_warm_up(experiment, source)
    _check_loss(experiment, source)
    return experiment


def list_experiments() -> dict[str, Path]:
    """List the experiment files under experiments/ and those that come with the package, by name; the former win."""
    found = {path.stem: path for path in sorted(_find_shipped().glob("*.toml"))}
    return found | {path.stem: path for path in sorted(EXPERIMENTS_ROOT.glob("*.toml"))}


@cache
def _find_shipped() -> Path:
    """Find the folder of the experiment files that come with the package: next to it in a checkout, else installed."""
    checkout = Path(__file__).parents[1] / EXPERIMENTS_ROOT
    if checkout.is_dir():
        return checkout
    files = [file for file in distribution("cxrkeras").files or [] if file.match(f"{_SHIPPED}/*.toml")]
    return Path(str(files[0].locate())).resolve().parent if files else checkout


def find_experiment(name: str) -> Path:
    """Find an experiment file by its name or path. Raises InputError with the nearest name if there is none."""
    known = list_experiments()
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, known)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"no experiment {name!r}; {hint}there are {', '.join(sorted(known)) or 'none'}")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply for settings") from None


def _assign(content: dict[str, Any], assignment: str) -> None:
    """Set one `section.key=value` in the content of an experiment file."""
    key, equals, value = assignment.partition("=")
    *sections, field = key.split(".")
    if not (equals and field and sections and all(sections)):
        raise InputError(f"settings have the form section.key=value, as in training.epochs=2; got {assignment!r}")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise InputError(f"{section} is not a section: cannot set {key}")
    place[field] = _parse_value(value, is_text=_takes_text([*sections, field]))


def _check_loss(experiment: Experiment, source: str) -> None:
    """Refuse an unknown loss. Not a validator, so that finished runs with a custom loss still load."""
    name, known = experiment.loss.name, (*LOSSES, *REGISTERED_LOSSES)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{source}: unknown loss {name!r}; {hint}the losses are {', '.join(known)}")


def _check_warm_up(experiment: Experiment, source: str) -> None:
    """Refuse a phase without an epoch at its full rate. Not a validator, so that finished runs with one still load."""
    shortest = min(phase.epochs for phase in experiment.phases)
    if experiment.schedule.name == "cosine" and experiment.schedule.warm_up > shortest:
        warm_up = f"schedule.warm_up is {experiment.schedule.warm_up:g} epochs"
        raise InputError(f"{source}: {warm_up} and a phase has {shortest}: shorten the warm-up")


# A quote opens where a value or a list item may start; elsewhere it is a plain character, as in data.records=o'brien
_QUOTED = r"""(?:(?<=[=\s,\[{])|^)(?:"(?:\\.|[^"\\])*"|'[^']*')"""
_ASSIGNMENT = re.compile(rf"""(?:{_QUOTED}|\[(?:{_QUOTED}|[^\]"'])*\]|(?<![=\s])["']|[^\s"'\[])+""")


def _split_assignments(text: str) -> list[str]:
    """Split `a.b=1 c.d="x y" e.f=[1, 2]` at spaces outside quotes and brackets."""
    found: list[str] = _ASSIGNMENT.findall(text)
    if "".join("".join(found).split()) != "".join(text.split()):  # something was skipped
        raise InputError(f"a quote or bracket in the settings is not closed: {text[:80]!r}")
    return found


def _parse_value(text: str, *, is_text: bool) -> object:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
        return text[1:-1] if is_quoted else text  # a bare word, or a path with backslashes that are not escapes
    except RecursionError:
        raise InputError(f"a setting is nested too deeply: {text[:20]}...") from None
    return text if is_text and not isinstance(value, str) else value  # as data.records=2024


def _takes_text(path: list[str]) -> bool:
    """Whether the setting at this path is a text."""
    annotation: object = Experiment
    for name in path:
        field = getattr(annotation, "model_fields", {}).get(name)
        if field is None:
            return False
        annotation = field.annotation
    return annotation in (str, str | None)


def _explain(errors: list[ErrorDetails]) -> str:
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = _name_place(error)
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}" if place else str(error["ctx"]["error"])
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f", got {error['input']!r}"
        allowed = " or ".join(other["msg"] for other in errors if _name_place(other) == place)  # one per allowed type
        return f"{place}: {allowed}{given}"
    section: type[pydantic.BaseModel] = Experiment
    for key in error["loc"][:-1]:
        annotation = Phase if isinstance(key, int) else section.model_fields[key].annotation
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            section = annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key {place}; {hint}allowed are {', '.join(section.model_fields)}"


def _name_place(error: ErrorDetails) -> str:
    """Join the location of an error, without pydantic's names of types such as `list[float]`."""
    return ".".join(str(key) for key in error["loc"] if isinstance(key, int) or key.isidentifier())


def dump_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as plain JSON values."""
    content: dict[str, Any] = json.loads(experiment.model_dump_json())
    return content


def format_experiment(experiment: Experiment) -> str:
    """Format the experiment as a TOML file that `load_experiment` reads; None values are left out."""
    lines = []

    def add(header: str, section: dict[str, Any]) -> None:
        lines.append(f"\n{header}" if lines else header)
        for key, value in section.items():
            if value is not None and not _is_nested(value):
                lines.append(f"{_format_key(key)} = {json.dumps(value, ensure_ascii=False)}")

    for name, section in dump_experiment(experiment).items():
        add(f"[{name}]", section)
        for key, value in section.items():
            if isinstance(value, dict):
                if value:
                    add(f"[{name}.{key}]", value)
            elif _is_nested(value):
                for entry in value:
                    add(f"[[{name}.{key}]]", entry)
    return "\n".join(lines) + "\n"


def _format_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
