"""PNG files that Pillow does not write."""

import struct
import zlib

import numpy as np


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_deep(levels, more=b"", is_interlaced=False):
    """A PNG of 16 bits, levels (height, width, channels); every line by another filter."""
    height, width, channels = levels.shape
    passes = [(slice(None), slice(None))]
    if is_interlaced:  # Adam7
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [(slice(y, None, dy), slice(x, None, dx)) for y, x, dy, dx in starts]
    lines = []
    for part in (levels[at] for at in passes):
        if part.size:
            raw = np.ascontiguousarray(part.astype(">u2")).view(np.uint8).reshape(len(part), -1)
            left = np.pad(raw, ((0, 0), (2 * channels, 0)))[:, : raw.shape[1]]
            above = np.pad(raw, ((1, 0), (0, 0)))[:-1]
            kinds = (raw, raw - left, raw - above)
            lines += [bytes([n % 3]) + kinds[n % 3][n].tobytes() for n in range(len(raw))]
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, is_interlaced)
    body = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + more + chunk(b"IEND", b"")
