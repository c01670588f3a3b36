from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.inputs import images
from tests import tiny_images

GREY = Image.new("RGB", (6, 4), (120, 130, 140))


def raw(kind: str, picture: Image.Image = GREY) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    width, height = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return Image.frombytes(
        "RGB", (width, height), draw(st.binary(min_size=3 * width * height, max_size=3 * width * height))
    )


def test_every_way_that_a_source_has_an_image_gives_the_same_input(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(raw("PNG"))
    expected = images.encoded(GREY)
    values = ["one.png", expected, raw("PNG"), {"bytes": raw("PNG"), "path": None}, {"bytes": None, "path": "one.png"}]
    assert {images.read(value, tmp_path) for value in values} == {expected}
    assert [images.read(value, tmp_path) for value in (None, "", float("nan"), {"bytes": None, "path": None})] == [
        ""
    ] * 4


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("none.png", "no such file: 'none.png'"),
        (b"not an image", "is no image that can be read"),
        (raw("PNG")[:40], "is no image that can be read"),
        ("data:image/png;base64,****", "what follows base64, is none"),
        ("data:text/plain;base64,aGk=", "a data: URI of one begins with data:image/"),
        ("data:image/png;base64," + base64.b64encode(b"hi").decode(), "is no image that can be read"),
    ],
)
def test_what_is_no_image_is_said(tmp_path: Path, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        images.read(value, tmp_path)


def test_an_image_that_is_sent_is_never_a_path(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(raw("PNG"))
    with pytest.raises(ValueError, match="begins with data:image/"):
        images.sent(str(tmp_path / "one.png"))
    assert images.sent(images.encoded(GREY)) == images.encoded(GREY)


def test_an_image_is_the_same_however_it_was_encoded() -> None:
    png, bmp, other = (images.uri(raw(kind)) for kind in ("PNG", "BMP", "GIF"))
    assert png != bmp
    assert images.key(png) == images.key(bmp)
    turned = images.encoded(GREY.resize((4, 6)))
    assert len({images.key(png), images.key(turned), images.key(images.encoded(Image.new("RGB", (6, 4))))}) == 3
    assert images.size(png) == images.size(other) == 24
    assert images.shown(png) == f"image {images.key(png)[:16]}"


@given(pictures())
def test_a_picture_survives_being_an_input(picture: Image.Image) -> None:
    assert images.opened(images.encoded(picture)).tobytes() == picture.tobytes()


@settings(max_examples=20)
@given(pictures(), st.integers(0, 100))
def test_harmless_changes_keep_the_size_and_are_the_same_again(picture: Image.Image, seed: int) -> None:
    given_ = images.encoded(picture)
    for change in images.CHANGES.values():
        changed = change(given_, random.Random(seed))
        assert images.opened(changed).size == picture.size
        assert change(given_, random.Random(seed)) == changed


def test_descriptors_follow_what_is_seen() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    smooth = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))
    dark, light = Image.new("L", (4, 4), 0), Image.new("L", (8, 8), 255)
    found = images.describe([images.encoded(p) for p in (dark, light, Image.fromarray(smooth), Image.fromarray(noise))])
    assert list(found.columns) == list(images.DESCRIPTORS)
    assert list(found[images.BRIGHTNESS][:2]) == [0, 1]
    assert list(found[images.CONTRAST][:2]) == [0, 0]
    assert found[images.SHARPNESS][3] > 3 * found[images.SHARPNESS][2] > 0
    assert list(found[images.PIXELS]) == [16, 64, 256, 256]


def test_pictures_that_look_alike_are_in_one_cluster() -> None:
    given_ = [image for image, _ in tiny_images.inputs(80)]
    found = images.topics(given_ + [images.encoded(Image.new("L", (8, 8), 255))] * 40, 2)
    assert set(found[:80]) == {"1"}
    assert set(found[80:]) == {"2"}
    assert images.topics(given_[:30], 3) == [""] * 30
