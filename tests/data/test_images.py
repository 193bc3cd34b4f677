import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from cxrkeras.data.images import (
    decode_image,
    hold_memory,
    load_image,
    open_image,
    read_header,
    resize_image,
    shrink_image,
)
from cxrkeras.data.limits import DECODING, READING, Gate
from cxrkeras.errors import InputError
from tests.support.dicoms import RAMP, make_dicom
from tests.support.pngs import chunk, write_deep

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (37, 53), np.uint8)


def encode(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def show_percentiles(x):
    low, high = np.percentile(x, (0.1, 99.9))
    return np.clip((np.asarray(x, np.float64) - low) / (high - low), 0, 1) * 255


def test_grey_png_is_read_exactly():
    assert np.array_equal(decode_image(encode(Image.fromarray(GREY))), GREY)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_become_grey_as_in_pillow(mode):
    colour = Image.fromarray(RNG.integers(0, 256, (20, 30, 4), np.uint8), "RGBA")
    image = colour.convert("RGB").convert(mode) if mode in ("P", "1", "CMYK", "RGB") else colour.convert(mode)
    content = encode(image, "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(content)) as decoded:
        expected = np.asarray(decoded.convert("L"))
    assert np.array_equal(decode_image(content), expected)


def test_eight_bits_are_never_windowed():
    dim = GREY // 8 + 40
    assert np.array_equal(decode_image(encode(Image.fromarray(dim))), dim)
    lossy = decode_image(encode(Image.fromarray(dim), "JPEG", quality=100)).astype(int)
    assert np.abs(lossy - dim).max() <= 2


def test_sixteen_bits_are_windowed_to_eight():
    deep = np.linspace(1000, 5000, 256 * 4).astype(np.uint16).reshape(16, 64)
    grey = decode_image(encode(Image.fromarray(deep)))
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.array_equal(np.argsort(grey.ravel(), kind="stable"), np.arange(grey.size))
    flat = Image.fromarray(np.full((4, 4), 700, np.uint16))
    assert not decode_image(encode(flat)).any()


def test_a_hot_pixel_does_not_darken_the_image():
    deep = RNG.integers(300, 900, (100, 120)).astype(np.uint16)
    deep[7, 9], deep[8, 9] = 65535, 0
    grey = decode_image(encode(Image.fromarray(deep)))
    assert np.abs(grey - show_percentiles(deep)).max() <= 0.51
    assert 100 < grey.mean() < 155


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_grey_alpha_and_colour_keep_their_depth(channels, is_interlaced):
    """12 bits of 16: from their first bytes alone there would be only 16 levels."""
    levels = RNG.integers(0, 4096, (41, 30, channels)).astype(np.uint16)
    grey = levels[..., 0] if channels < 3 else levels[..., :3] @ [0.299, 0.587, 0.114]
    decoded = decode_image(write_deep(levels, is_interlaced=is_interlaced))
    assert np.abs(decoded - show_percentiles(grey)).max() <= 0.6
    header = read_header(write_deep(levels, is_interlaced=is_interlaced))
    assert (header.bits, header.width, header.height) == (16, 30, 41)


def test_deep_grey_is_the_same_in_colour_and_with_alpha():
    grey = RNG.integers(0, 65536, (40, 50)).astype(np.uint16)
    alpha = RNG.integers(0, 65536, (40, 50)).astype(np.uint16)
    files = [np.stack(planes, axis=2) for planes in ([grey], [grey, alpha], [grey] * 3, [grey, grey, grey, alpha])]
    first, *others = [decode_image(write_deep(levels)) for levels in files]
    assert all(np.array_equal(first, other) for other in others)


def test_deep_colour_equals_its_grey(cases):
    deep, colour, plain = (
        decode_image((cases / "images" / f"{name}.png").read_bytes()).astype(int)
        for name in ("12bit_grey", "12bit_rgb", "8bit")
    )
    assert np.abs(deep - colour).max() <= 1
    assert np.corrcoef(deep.ravel(), plain.ravel())[0, 1] > 0.999


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
    9: lambda a: a,
}


@pytest.mark.parametrize("number", TURNS)
def test_exif_orientation_is_applied(number):
    exif = Image.Exif()
    exif[0x0112] = number
    smooth = np.asarray(Image.fromarray(GREY).resize((60, 40), Image.Resampling.BICUBIC).resize((120, 90)))
    lossy = encode(Image.fromarray(smooth), "JPEG", exif=exif, quality=95)
    upright = encode(Image.fromarray(smooth), "JPEG", quality=95)
    deep = np.stack([smooth.astype(np.uint16) * 200] * 3, axis=2)
    block = exif.tobytes()
    behind = chunk(b"eXIf", block.removeprefix(b"Exif\0\0"))
    pairs = [
        (lossy, decode_image(upright)),
        (encode(Image.fromarray(smooth), exif=exif), smooth),
        (encode(Image.fromarray(smooth).convert("RGB"), exif=exif), smooth),
        (write_deep(deep, behind), decode_image(write_deep(deep))),
        (encode(Image.fromarray(smooth))[:-12] + behind + chunk(b"IEND", b""), smooth),
    ]
    for content, picture in pairs:
        expected = TURNS[number](picture)
        assert np.array_equal(decode_image(content), expected)
        assert np.array_equal(load_image(content, 32), resize_image(np.ascontiguousarray(expected), 32))
        header = read_header(content)
        assert (header.height, header.width) == expected.shape


def test_exif_orientation_of_real_files(cases):
    upright = decode_image((cases / "images" / "upright.jpg").read_bytes()).astype(int)
    for name in ("orientation6.jpg", "orientation2.png"):
        assert np.abs(decode_image((cases / "images" / name).read_bytes()) - upright).mean() < 4


def test_a_damaged_exif_block_is_ignored():
    for block in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0"):
        assert np.array_equal(decode_image(encode(Image.fromarray(GREY), exif=block)), GREY)
        read_header(encode(Image.fromarray(GREY), "JPEG", exif=block))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"Image Index,Finding Labels\n", "not a PNG, JPEG or DICOM"),
        (encode(Image.fromarray(GREY))[:200], "damaged"),
        (write_deep(np.zeros((40, 40, 3), np.uint16) + 7)[:-60], "damaged"),
        (encode(Image.new("1", (20_000, 20_000))), "limit of 80,000,000"),
        (encode(Image.new("1", (10_000, 10_000))), "more pixels than the limit"),
        (encode(Image.fromarray(GREY), "BMP"), "not a PNG, JPEG or DICOM"),
        (b"PK\x03\x04" + bytes(100), "ZIP archive"),
    ],
    ids=["empty", "text", "truncated", "deep truncated", "bomb", "large", "bmp", "zip"],
)
def test_other_files_are_refused_with_a_reason(content, word):
    with pytest.raises(InputError, match=word):
        decode_image(content)


def test_resizing_averages_areas_to_shrink_and_interpolates_to_enlarge():
    big = RNG.integers(0, 256, (64, 64)).astype(np.uint8)
    areas = big.reshape(16, 4, 16, 4).mean((1, 3))
    assert np.abs(resize_image(big, 16).astype(float) - areas).max() <= 1
    ramp = np.tile(np.arange(0, 160, 10, np.uint8), (16, 1))
    grown = resize_image(ramp, 64).astype(int)
    assert (np.diff(grown, axis=1) >= 0).all()
    assert grown.shape == (64, 64)


@pytest.mark.parametrize("shape", [(1, 1), (5, 50), (50, 5), (224, 224), (300, 100)])
def test_any_shape_becomes_a_square(shape):
    image = encode(Image.fromarray(np.full(shape, 77, np.uint8)))
    assert (load_image(image, 224) == 77).all()
    assert load_image(image, 224).shape == (224, 224)


def test_images_for_display_are_shrunk_and_never_enlarged():
    assert shrink_image(np.full((300, 600), 9, np.uint8), 200).shape == (100, 200)
    assert np.array_equal(shrink_image(GREY, 200), GREY)


def test_a_gate_never_exceeds_its_budget_and_all_requests_end():
    gate, lock = Gate(10), threading.Lock()
    used, peak, done = 0, 0, []

    def work(amount):
        nonlocal used, peak
        with gate.hold(amount):
            with lock:
                used += min(amount, 10)
                peak = max(peak, used)
            time.sleep(0.002)
            with lock:
                used -= min(amount, 10)
        done.append(amount)

    amounts = [1, 2, 3, 25, 4, 10, 1, 7] * 8
    threads = [threading.Thread(target=work, args=[amount]) for amount in amounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == sorted(amounts)
    assert 7 <= peak <= 10


def test_a_large_request_is_not_starved():
    gate, order = Gate(10), []

    def work(name, amount):
        with gate.hold(amount):
            order.append(name)

    with gate.hold(1):
        threads = []
        for name, amount in (("large", 10), ("small", 1)):
            threads.append(threading.Thread(target=work, args=(name, amount)))
            threads[-1].start()
            time.sleep(0.05)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["large", "small"]


def test_memory_is_reserved_for_the_pixels_and_bytes_of_a_file(tmp_path):
    colour, deep = Image.fromarray(GREY).convert("RGB"), np.zeros((20, 30, 3), np.uint16)
    files = [
        (encode(Image.fromarray(GREY)), 3 * GREY.size),
        (encode(colour, "JPEG"), 5 * GREY.size),
        (write_deep(deep), 8 * 600),
        (make_dicom(RAMP), 3 * RAMP.size),
    ]
    for content, needed in files:
        (tmp_path / "image").write_bytes(content)
        free = DECODING._free, READING._free
        with open_image(tmp_path / "image") as read:
            assert read == content
            assert (free[0] - DECODING._free, free[1] - READING._free) == (needed, len(content))
        with pytest.raises(RuntimeError), hold_memory(content):
            raise RuntimeError
        assert (DECODING._free, READING._free) == free


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with open(tmp_path / "film.mp4", "wb") as file:
        file.truncate(10**10)
    with pytest.raises(InputError, match="10,000 MB, more than any radiograph"), open_image(tmp_path / "film.mp4"):
        pass
