"""Multi-label chest X-ray classifiers in Keras 3 on TensorFlow: train, compare, explain, serve.

From Python:

    import cxrkeras

    records = cxrkeras.open_records("nih-224")
    fold = cxrkeras.train_fold(cxrkeras.load_experiment("effnet_b0_adam_steplr")).fold
    run = cxrkeras.open_run("effnet_b0_adam_steplr")
    run.predict("a.dcm").probs
    run.explain("a.dcm")["Mass"]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "NETWORKS",
    "load_experiment",
    "open_records",
    "open_run",
    "register_loss",
    "register_network",
    "train_fold",
]

if TYPE_CHECKING:
    from cxrkeras.config import load_experiment, register_loss
    from cxrkeras.models.registry import NETWORKS, register_network
    from cxrkeras.predict.opened import open_predictor_run as open_run
    from cxrkeras.records.folder import open_records
    from cxrkeras.training.fit import train_fold

_HOMES = {
    "NETWORKS": ("cxrkeras.models.registry", "NETWORKS"),
    "load_experiment": ("cxrkeras.config", "load_experiment"),
    "open_records": ("cxrkeras.records.folder", "open_records"),
    "open_run": ("cxrkeras.predict.opened", "open_predictor_run"),
    "register_loss": ("cxrkeras.config", "register_loss"),
    "register_network": ("cxrkeras.models.registry", "register_network"),
    "train_fold": ("cxrkeras.training.fit", "train_fold"),
}
_NEED_TENSORFLOW = ("train_fold",)


def __getattr__(name: str):
    """Import what is asked for, as TensorFlow takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _NEED_TENSORFLOW:
        from cxrkeras.tensorflow_import import import_tensorflow

        import_tensorflow()
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
