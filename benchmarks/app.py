"""Measure the app through HTTP: `make bench-app`, predictions and explanations of all 15 labels.

A server as `make app` starts it, with efficientnetb7 at 224 px and random weights, and PNGs of 1024 px (phantoms), the
size of those in the NIH release. For comparison, the same network without HTTP, and the times reported for the
original. The tables are saved in `benchmarks/README.md`.
"""

import argparse
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import psutil
import tensorflow as tf

from benchmarks.table import Tables
from cxrkeras.config import CONFIG, dump_experiment, load_experiment
from cxrkeras.data.images import load_image
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.files import write_json
from cxrkeras.labels import NIH
from cxrkeras.models.classifier import build_classifier
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.scoring.ood_check import fit_ood_check
from cxrkeras.scoring.operating_points import build_origin, fit_operating_points, save_operating_points
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run_files import METRICS, MODEL, OOD_CHECK, SCORED_SETS
from cxrkeras.scoring.scores import describe_scores

REPEATS, MANY, CLIENTS = 20, 50, 3  # the page sends three files at once
SCORED = 200  # images of the simulated validation set


def write_fold(folder: Path, name: str, size: int, images: np.ndarray) -> None:
    """Write a fold whose network has random weights: all files that the app reads."""
    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    network = build_classifier(name, size, len(NIH))
    network.save(folder / MODEL)
    rng = np.random.default_rng(0)
    ids = np.array([f"{number}.png" for number in range(SCORED)])
    values = (rng.random((SCORED, len(NIH))) < 0.3).astype(np.int8)
    validation = Predictions(ids, ids, values, rng.normal(size=values.shape) + values, NIH)
    facts = {"split_name": "none", "is_synthetic": True}
    positives = dict(zip(NIH, values.sum(axis=0).tolist(), strict=True))
    counts = {"images": SCORED, "patients": SCORED, "positives": positives}
    write_json(
        folder / METRICS,
        facts
        | {"run": folder.parent.name, "fold": 0, "best_epoch": 1, "records": "none", "is_partial": False}
        | {scored: describe_scores(validation) for scored in SCORED_SETS},
    )
    experiment = load_experiment(settings={"model": {"name": name, "weights": "none", "size": size}})
    write_json(
        folder / CONFIG,
        facts
        | {"name": "bench", "experiment": dump_experiment(experiment), "records_fingerprint": "none"}
        | {"folds": {"count": 5, "seed": 0}, "labels": NIH.names, "no_finding": NIH.no_finding}
        | {"versions": {"keras": keras.__version__}, "parts": dict.fromkeys(("training", *SCORED_SETS), counts)},
    )
    fitted_on = build_origin(validation, "none", 0)
    save_operating_points(folder, fit_operating_points(validation, fitted_on))
    batches = [(tf.constant(images),)]
    np.savez(folder / OOD_CHECK, **fit_ood_check(network, [batches], batches))


class Server:
    """`cxrkeras app` in its own process."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "cxrkeras", "app", "--run", str(folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.5)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request(method, path, body, {"Content-Type": "multipart/form-data; boundary=edge"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()

    def post(self, path: str, content: bytes) -> float:
        """Send one file; returns the seconds until its response is read."""
        head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        started = time.perf_counter()
        status, body = self.request("POST", path, head + content + b"\r\n--edge--\r\n")
        seconds = time.perf_counter() - started
        if status != 200 or b'"labels"' not in body:
            raise SystemExit(f"{path} responded with {status}: {body[:300]}")
        return seconds

    @property
    def megabytes(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


def measure_network(name: str, size: int, image: np.ndarray) -> tuple[float, float]:
    """Seconds of the forward pass of the network as Keras has it, and of Grad-CAM of all labels for a contact sheet."""
    network = build_classifier(name, size, len(NIH))
    forward = tf.function(lambda images: network(images, training=False), autograph=False)
    explain = build_explainer(network, NIH)
    batch = tf.constant(image[None, ..., None], tf.float32)
    return _compute_median(lambda: forward(batch).numpy()), _compute_median(lambda: explain(image), 5)


def _compute_median(call, repeats: int = REPEATS) -> float:
    """Median seconds of a call, after one that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="efficientnetb7")
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write_phantoms(Path(place) / "data", num_images=MANY, size=1024)
        contents = [path.read_bytes() for path in sorted((Path(place) / "data" / "images").iterdir())]
        images = np.stack([load_image(content, options.size) for content in contents])[..., None]
        folder = Path(place) / "bench-00000000" / "fold0"
        write_fold(folder, options.network, options.size, images)
        server = Server(folder)
        try:
            predict = [server.post("/api/v1/predictions", content) for content in contents[:REPEATS]]
            explain = [server.post("/api/v1/explanations", content) for content in contents[:REPEATS]]
            memory = [server.megabytes]
            rates = []
            for _ in range(3):
                started = time.perf_counter()
                with ThreadPoolExecutor(CLIENTS) as pool:
                    list(pool.map(lambda content: server.post("/api/v1/predictions", content), contents))
                rates.append((time.perf_counter() - started) / MANY)
                memory.append(server.megabytes)
        finally:
            server.process.terminate()
            server.process.wait()
        forward, full = measure_network(options.network, options.size, images[0, ..., 0])
    tables = Tables("App", "make bench-app")
    kilobytes = sum(map(len, contents)) / len(contents) / 1e3
    tables.add(
        f"seconds per image, {options.network} at {options.size} px, PNGs of 1024 px ({kilobytes:.0f} KB), "
        f"{os.cpu_count()} cores",
        ["", "seconds", "slowest", "ratio to the forward pass"],
        [
            ("the network's forward pass alone", f"{forward:.3f}", "", "1.00"),
            *(
                (text, f"{np.median(times):.3f}", f"{max(times):.3f}", f"{np.median(times) / forward:.2f}")
                for text, times in (
                    ("prediction through HTTP", predict),
                    (f"with the heat maps of {len(NIH)} labels as PNG, through HTTP", explain),
                )
            ),
            (f"Grad-CAM of {len(NIH)} labels as `make gradcam` computes it, alone", f"{full:.3f}", "",
             f"{full / forward:.2f}"),
            (f"{MANY} images, {CLIENTS} at a time, through HTTP", f"{np.median(rates):.3f}", f"{max(rates):.3f}",
             f"{np.median(rates) / forward:.2f}"),
            ("the original's prediction, as reported", "2 to 3", "", ""),
            ("the original's with four heat maps, as reported", "5 to 6", "", ""),
        ],
    )  # fmt: skip
    tables.add(
        f"memory of the server after the single images, then after each {MANY} more",
        ["images", "MB"],
        [(str(2 * REPEATS + MANY * number), f"{value:.0f}") for number, value in enumerate(memory)],
    )
    tables.save()


if __name__ == "__main__":
    main()
