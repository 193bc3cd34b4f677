from pathlib import Path

import pytest

from cxrkeras.config import format_experiment, load_experiment
from cxrkeras.errors import InputError
from cxrkeras.models.registry import NETWORKS

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))
RESNET = {"model": {"name": "resnet18"}}


def test_overrides_take_precedence_over_settings_and_settings_over_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nname = "resnet18"\n[training]\nepochs = 3\nbatch_size = 8\nseed = 5\n')
    settings = {"training": {"batch_size": 16, "seed": 6}}
    experiment = load_experiment(str(path), settings=settings, overrides="training.seed=7 optimiser.learning_rate=3e-4")
    assert (experiment.training.epochs, experiment.training.batch_size, experiment.training.seed) == (3, 16, 7)
    assert experiment.optimiser.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("training.epoch=3", ["training.epoch", "epochs", "batch_size"]),
        ("trainin.epochs=3", ["trainin", "training"]),
        ("training.epochs=true", ["training.epochs", "integer", "True"]),
        ("training.epochs=0", ["training.epochs", "greater", "0"]),
        ("training.epochs=many", ["training.epochs", "integer", "many"]),
        ("schedule.name=cosin", ["schedule.name", "constant", "exponential", "cosine"]),
        ("optimiser.learning_rate=nan", ["optimiser.learning_rate", "nan"]),
        ("epochs", ["section.key=value", "epochs"]),
        ("model.head.poling=max", ["unknown key model.head.poling", "did you mean pooling"]),
        ("model.head.activation=sine", ["model.head.activation", "gelu", "sine"]),
        ("loss.alpha=0.5", ["loss", "alpha is a setting of focal", "bce"]),
        ("loss.name=focal loss.alpha=2", ["loss.alpha", "less than 1", "got 2"]),
        ("loss.name=focl", ["unknown loss 'focl'", "did you mean focal"]),
        ("labels.uncertain=maybe", ["labels.uncertain", "'positive'", "maybe"]),
        ("labels.uncertain_by_label.Mass=no", ["labels.uncertain_by_label.Mass", "'ignore'"]),
        ("optimiser.name=sgd optimiser.momentum=0 optimiser.nesterov=true", ["nesterov needs a momentum"]),
        ("training.phases=3", ["training.phases", "list", "3"]),
        ('training.phases=[{layers="had",epochs=1}]', ["training.phases.0.layers", "'head' or 'all'", "had"]),
        ("training.phases=[{layers=9,epochs=1}]", ["training.phases.0.layers", "equal to 5", "9"]),
        ("training.phases=[{layer=1,epochs=1}]", ["training.phases.0.layer", "did you mean layers"]),
        ("training.phases=[{epochs=2}] training.epochs=3", ["epochs is 3", "phases have 2"]),
        ("model.name.more=3", ["name is not a section", "model.name.more"]),
    ],
)
def test_invalid_settings_are_named(overrides, words):
    with pytest.raises(InputError) as caught:
        load_experiment(settings=RESNET, overrides=overrides)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("content", ['model = "resnet18"', "model = [1]", "training = 5\n[model]\nname = 'resnet18'"])
def test_a_value_in_place_of_a_section_is_refused(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(InputError, match="must be a section"):
        load_experiment(str(path), settings=RESNET)


def test_tracked_experiments_are_found():
    assert len(EXPERIMENTS) > 10


def test_missing_and_broken_files_are_named(tmp_path):
    (tmp_path / "broken.toml").write_text("[model\n")
    for name in ("nowhere", str(tmp_path / "broken.toml")):
        with pytest.raises(InputError, match=name):
            load_experiment(name)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_tracked_experiment_resolves_and_opens_with_its_command(path):
    assert load_experiment(str(path)).model.name
    assert path.read_text().startswith(f"# make train EXPERIMENT={path.stem}")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_formatted_experiment_loads_unchanged(path, tmp_path):
    experiment = load_experiment(str(path))
    (tmp_path / "formatted.toml").write_text(format_experiment(experiment))
    assert load_experiment(str(tmp_path / "formatted.toml")) == experiment


@pytest.mark.parametrize("row", [row for row in NETWORKS.values() if row.recipe], ids=lambda row: row.recipe)
def test_the_recipe_of_a_network_is_one_of_its_experiments(row):
    assert NETWORKS[load_experiment(row.recipe).model.name] is row


def test_the_staged_experiment_has_its_phases():
    phases = load_experiment("resnet_50_staged").phases
    assert [(phase.layers, phase.epochs, phase.learning_rate) for phase in phases] == [
        ("head", 2, 1e-3),
        (1, 5, 1e-4),
        (2, 4, 5e-4),
        ("all", 3, 1e-3),
    ]


def test_experiments_are_frozen():
    experiment = load_experiment(settings=RESNET)
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.epochs = 3


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("data.records=2024", ("2024", "imagenet")),
        ('data.records="my records"', ("my records", "imagenet")),
        ("model.weights='a b/c.keras' data.records=x", ("x", "a b/c.keras")),
        ("data.records=true model.weights=1.5", ("true", "1.5")),
        ("data.records=o'brien model.weights=it's.keras", ("o'brien", "it's.keras")),
        (r'model.weights="C:\Users\a b.keras"', (None, r"C:\Users\a b.keras")),
        ("", (None, "imagenet")),
    ],
)
def test_names_may_contain_spaces_and_look_like_numbers(overrides, expected):
    experiment = load_experiment(settings={"model": {"name": "resnet18"}}, overrides=overrides)
    assert (experiment.data.records, experiment.model.weights) == expected


def test_lists_may_contain_spaces_and_unclosed_ones_are_refused():
    weights = ", ".join(["0.1"] * 15)
    settings = {"model": {"name": "resnet18"}, "loss": {"name": "focal"}}
    experiment = load_experiment(settings=settings, overrides=f"loss.alpha=[{weights}] training.epochs=2")
    assert experiment.loss.alpha == [0.1] * 15
    for overrides in ('data.records="x', "loss.alpha=[0.1, 0.2", "data.records='its"):
        with pytest.raises(InputError, match="not closed"):
            load_experiment(settings=settings, overrides=overrides)


def test_a_warm_up_longer_than_a_phase_is_refused():
    settings = {"model": {"name": "resnet18"}, "schedule": {"name": "cosine", "warm_up": 2.5}}
    assert load_experiment(settings=settings).schedule.warm_up == 2.5
    with pytest.raises(InputError, match=r"warm_up is 2\.5 epochs and a phase has 2: shorten"):
        load_experiment(settings=settings, overrides="training.epochs=2")
    assert load_experiment(settings={"model": {"name": "resnet18"}, "schedule": {"name": "cosine"}},
                           overrides="training.epochs=1")  # fmt: skip


def test_open_settings_are_refused_until_they_are_resolved():
    experiment = load_experiment(settings=RESNET)
    for section, key in (
        (experiment.model, "size"),
        (experiment.training, "epochs"),
        (experiment.training, "batch_size"),
    ):
        with pytest.raises(ValueError, match=f"{key} is not resolved"):
            getattr(section, f"resolved_{key}")
        assert getattr(section.model_copy(update={key: 16}), f"resolved_{key}") == 16
    assert experiment.phases[0].resolved_learning_rate == experiment.optimiser.learning_rate
