"""A small public network: its row, and its file as PyTorch would have written it."""

import contextlib
import functools
import http.server
import threading

import numpy as np

from cxrkeras.models import public_table
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.public_table import PublicNetwork
from tests.support.torch_files import save_state

NAME = "tiny"


def tiny_row(**changes):
    """resnet18 at 32 px with three outputs, one of them untrained, prepared as torchxrayvision's."""
    facts = {
        "network": "resnet18",
        "size": 32,
        "address": "http://127.0.0.1:9/tiny.pt",  # nobody listens there
        "page": "its page",
        "licence": "MIT",
        "trained_on": "a public set",
        "split": "a split that was not saved",
        "labels": ("Mass", "", "Effusion"),
        "operating_points": (0.4, 0, 0.3),
        "preparation": {"crop": "centre", "grey": "mean", "window": "off", "resize": "linear"},
        "citation": "Nobody, 2020",
        "published": ({"score": "AUC of Mass", "value": 0.8, "images": "a test set of its own"},),
    }
    return PublicNetwork(**facts | changes)


def draw_state(row):
    """Draw arrays with the names and layouts of PyTorch for a row with a ResNet."""
    network = build_classifier(row.network, row.size, len(row.labels))
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    state = {}
    for layer in network.layers:
        for variable in layer.weights:
            key = "fc" if layer.name == "logits" else layer.name
            array = np.asarray(variable)
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            name = {"kernel": "weight", "bias": "bias"} if key == "fc" else names
            state[f"{key}.{name.get(variable.name, 'running_var')}"] = array
    return state


def write_tiny(path, row=None):
    save_state(path, draw_state(row or tiny_row()), prefix="module.", epoch=3)


@contextlib.contextmanager
def known(monkeypatch, **rows):
    """Put rows into the table of public networks."""
    table = public_table.load_public_networks() | rows
    with monkeypatch.context() as patch:
        patch.setattr(public_table, "load_public_networks", lambda: table)
        yield


@contextlib.contextmanager
def serve_folder(folder):
    """Serve a folder on 127.0.0.1; yields the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass
