"""Bounds of image files: what is opened at all, and how much memory one may ask for."""

from __future__ import annotations

import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from archives import encode, images
from dica.data import images as module
from dica.data.images import Encoded, Recipe, decode, decoded


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes whose header says that it is enormous."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_every_declared_format_is_told_by_its_content(form):
    assert decode(encode(images(1, 6, 5)[0], form), Recipe()).shape == (6, 5, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
        encode(images(1, 6, 6)[0], "TGA"),
        encode(images(1, 6, 6)[0], "ICO"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"",
    ],
    ids=["eps", "tga", "ico", "svg", "empty"],
)
def test_other_content_is_not_opened_whatever_the_file_is_called(data):
    with pytest.raises(ValueError, match="its content is none of JPEG, PNG"):
        decode(data, Recipe())


@pytest.mark.parametrize(
    ("width", "height", "recipe"),
    [
        (1, 100_000, Recipe(96, "crop")),  # would become 96 x 9,600,000
        (100_000, 1, Recipe(96)),
        (1, 10_000_000, Recipe(96, "stretch")),  # 96 x 10,000,000 on its way
        (20_000, 20_000, Recipe()),
        (2**31 - 1, 1, Recipe()),
    ],
)
def test_an_image_too_large_on_its_way_is_refused_before_it_is_decoded(monkeypatch, width, height, recipe):
    monkeypatch.setattr(module, "_pixels", lambda *_: pytest.fail("decoded"))
    with pytest.raises((ValueError, Image.DecompressionBombError), match=r"pixels are too many|exceeds limit"):
        decode(png_that_claims(width, height), recipe)


def test_a_panorama_is_not_too_large():
    assert decode(encode(np.zeros((20, 400, 3), np.uint8)), Recipe(96, "crop")).shape == (96, 96, 3)


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 10)
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    inside, most = 0, 0
    count = threading.Lock()

    def pixels(image, recipe) -> np.ndarray:
        nonlocal inside, most
        with count:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with count:
            inside -= 1
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(module, "_pixels", pixels)
    data = encode(images(1, 4, 4)[0])
    assert len(list(decoded([Encoded("train", n, "x", data) for n in range(8)], Recipe()))) == 8
    assert most == 1


def test_few_bytes_are_in_flight_at_once(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    waiting = [Encoded("train", n, "x", bytes(40)) for n in range(7)]
    assert [len(chunk) for chunk in module._chunks(waiting)] == [3, 3, 1]
    monkeypatch.setattr(module, "CHUNK", 2)
    assert [len(chunk) for chunk in module._chunks(waiting)] == [2, 2, 2, 1]
