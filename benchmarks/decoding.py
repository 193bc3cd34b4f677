"""Measure decoding of the largest images allowed: `python -m benchmarks.decoding`.

Each kind is decoded in a separate process. Its memory is the peak, the file's bytes included, less what the process
held after decoding a small image of that kind; the seconds are those of the decoding alone. The table is saved in
`benchmarks/README.md`.
"""

import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.table import Tables

SHAPE = (10_000, 8_000)  # 80 megapixels, the most that are allowed
SMALL = (100, 80)
FILES, WORKERS = 8, 4  # as many threads as `predict` has


def draw(shape: tuple[int, int], bits: int) -> np.ndarray:
    """A ramp with noise, uint16 or uint32 (height, width)."""
    ramp = np.linspace(0, (1 << bits) - 2**9, shape[0] * shape[1]).astype(np.uint32).reshape(shape)
    ramp += np.resize(np.random.default_rng(0).integers(0, 2**8, 2**20, np.uint32), shape)
    return ramp if bits > 16 else ramp.astype(np.uint16)


def encode_dicom(shape: tuple[int, int], bits: int = 16, kind: str = "MONOCHROME2", **elements) -> bytes:
    """An uncompressed file without a preamble, implicit VR little endian."""
    words = draw(shape, bits)
    values = {
        (0x0028, 0x0002): 1, (0x0028, 0x0004): kind, (0x0028, 0x0010): shape[0], (0x0028, 0x0011): shape[1],
        (0x0028, 0x0100): 8 * words.itemsize, (0x0028, 0x0101): bits, (0x0028, 0x0102): bits - 1,
        (0x0028, 0x0103): elements.get("sign", 0),
    }  # fmt: skip
    if "padding" in elements:
        values[0x0028, 0x0120] = elements["padding"]
    if "window" in elements:
        values[0x0028, 0x1050], values[0x0028, 0x1051] = map(str, elements["window"])
    out = b"\x08\x00\x60\x00\x02\x00\x00\x00DX"
    for tag, value in sorted(values.items()):
        text = struct.pack("<H", value) if isinstance(value, int) else value.encode()
        text += b" " * (len(text) % 2)
        out += struct.pack("<HHI", *tag, len(text)) + text
    return out + struct.pack("<HHI", 0x7FE0, 0x0010, words.nbytes) + words.tobytes()


def encode_png(shape: tuple[int, int], bits: int, channels: int) -> bytes:
    """A PNG of one to four channels, compressed line by line."""
    words = draw(shape, 16)
    words = words.astype(">u2") if bits == 16 else (words >> 8).astype(np.uint8)
    lines = np.repeat(words[..., None], channels, axis=2).reshape(shape[0], -1).view(np.uint8)
    packer = zlib.compressobj(1)
    compressed = [packer.compress(b"\0" + line.tobytes()) for line in lines]
    body = b"".join([*compressed, packer.flush()])
    head = struct.pack(">IIBBBBB", shape[1], shape[0], bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


KINDS = {
    "DICOM, 16 bits, window": lambda shape: encode_dicom(shape, window=(30000, 20000)),
    "DICOM, 16 bits signed, window": lambda shape: encode_dicom(shape, sign=1, window=(0, 20000)),
    "DICOM, 16 bits, MONOCHROME1, padding, no window": lambda shape: encode_dicom(shape, kind="MONOCHROME1", padding=7),
    "DICOM, 12 bits, no window": lambda shape: encode_dicom(shape, bits=12),
    "DICOM, 32 bits, no window": lambda shape: encode_dicom(shape, bits=32),
    "PNG, grey": lambda shape: encode_png(shape, 8, 1),
    "PNG, colour": lambda shape: encode_png(shape, 8, 3),
    "PNG, grey, 16 bits": lambda shape: encode_png(shape, 16, 1),
    "PNG, grey with alpha, 16 bits": lambda shape: encode_png(shape, 16, 2),
    "PNG, colour, 16 bits": lambda shape: encode_png(shape, 16, 3),
    "PNG, colour with alpha, 16 bits": lambda shape: encode_png(shape, 16, 4),
}


def read_status(name: str) -> float:
    """Memory of this process in MB: VmRSS is the current use, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1e3


def measure(small: Path, large: Path, num: int) -> dict[str, float]:
    """Decode a file once, or several times in threads as `predict` does; run by the process under test."""
    from cxrkeras.data.images import decode_image, open_image

    def decode(path: Path) -> float:
        with open_image(path) as content:
            started = time.perf_counter()
            decode_image(content)
            return time.perf_counter() - started

    decode(small)
    before, started = read_status("VmRSS"), time.perf_counter()
    if num == 1:
        seconds = decode(large)
    else:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(decode, [large] * num))
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "megabytes": read_status("VmHWM") - before}


def main() -> None:
    tables = Tables("Decoding", "python -m benchmarks.decoding")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        first = next(iter(KINDS))
        for kind, num in [*((kind, 1) for kind in KINDS), (first, FILES)]:
            small.write_bytes(KINDS[kind](SMALL))
            large.write_bytes(KINDS[kind](SHAPE))
            command = [sys.executable, "-m", "benchmarks.decoding", str(small), str(large), str(num)]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            name = kind if num == 1 else f"{kind}: {num} files, {WORKERS} threads"
            megapixels = num * SHAPE[0] * SHAPE[1] / 1e6
            rows.append((name, f"{megapixels:.0f}", f"{figures['seconds']:.1f}", f"{figures['megabytes']:.0f}"))
    tables.add("the largest images allowed", ["kind", "megapixels", "seconds", "additional MB"], rows)
    tables.save()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
