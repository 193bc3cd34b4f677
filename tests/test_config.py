from pathlib import Path

import pytest

from cxrkeras.config import load_experiment
from cxrkeras.errors import InputError

RESNET = {"model": {"name": "resnet18"}}


def test_file_settings_and_overrides_are_laid_over_each_other(tmp_path):
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
        ("schedule.name=cosine", ["schedule.name", "constant", "exponential", "cosine"]),
        ("optimiser.learning_rate=nan", ["optimiser.learning_rate", "nan"]),
        ("epochs", ["section.key=value", "epochs"]),
        ("model.head.poling=max", ["unknown key model.head.poling", "did you mean pooling"]),
        ("model.head.activation=sine", ["model.head.activation", "gelu", "sine"]),
        ("model.name.more=3", ["name is no section", "model.name.more"]),
    ],
)
def test_wrong_settings_are_named(overrides, words):
    with pytest.raises(InputError) as caught:
        load_experiment(settings=RESNET, overrides=overrides)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("content", ['model = "resnet18"', "model = [1]", "training = 5\n[model]\nname = 'resnet18'"])
def test_a_section_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(InputError, match="must be a section"):
        load_experiment(str(path), settings=RESNET)


def test_missing_and_broken_files_are_named(tmp_path):
    (tmp_path / "broken.toml").write_text("[model\n")
    for name in ("nowhere", str(tmp_path / "broken.toml")):
        with pytest.raises(InputError, match=name):
            load_experiment(name)


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.toml")), ids=str)
def test_every_tracked_experiment_resolves_and_opens_with_its_command(path):
    assert load_experiment(str(path)).model.name
    assert path.read_text().startswith(f"# make train EXPERIMENT={path.stem}")


def test_experiments_are_frozen():
    experiment = load_experiment(settings=RESNET)
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.epochs = 3
