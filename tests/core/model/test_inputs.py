"""Values for ports: shapes, types, pictures. Pictures are checked pixel by pixel against numpy.

Covers tlkit/core/model/arrays.py, tlkit/core/model/outputs.py, tlkit/ports/images.py.
"""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlkit.core.model.inputs import Drawn, check_shape, draw, port_named, to_port
from tlkit.errors import LoadError, UsageError
from tlkit.ports.shapes import shapes_text
from tlkit.types import ImageSpec, TensorSpec

FIXED = TensorSpec("x", "float32", (1, 4))
RANGED = TensorSpec("x", "float32", (1, 4), ranges=((1, 1), (2, None)))
ENUMERATED = TensorSpec("x", "float32", (1, 4), enumerated=((1, 4), (1, 8)))
RNG = np.random.default_rng(3)


def image_port(layout: str = "RGB", width: int = 6, height: int = 4, **more: object) -> TensorSpec:
    channels = 3 if layout in ("RGB", "BGR") else 1
    dtype = "float16" if layout == "GRAYSCALE_FLOAT16" else "float32"
    spec = ImageSpec(layout, width, height, **more)  # type: ignore[arg-type]
    return TensorSpec("image", dtype, (1, channels, height, width), "image", image=spec)


@pytest.mark.parametrize(
    ("spec", "shape", "fits"),
    [
        (FIXED, (1, 4), True),
        (FIXED, (4,), False),
        (FIXED, (1, 5), False),
        (RANGED, (1, 2), True),
        (RANGED, (1, 9000), True),
        (RANGED, (1, 1), False),
        (RANGED, (2, 2), False),
        (RANGED, (1, 2, 1), False),
        (ENUMERATED, (1, 8), True),
        (ENUMERATED, (1, 6), False),
        (image_port(), (1, 3, 4, 6), True),
        (image_port(), (1, 3, 6, 4), False),
        (image_port(sizes=((6, 4), (2, 2))), (1, 3, 2, 2), True),
        (image_port(width_range=(2, None), height_range=(2, 8)), (1, 3, 8, 100), True),
        (image_port(width_range=(2, None), height_range=(2, 8)), (1, 3, 9, 100), False),
        (TensorSpec("x", "float32"), (7, 7), True),
        (TensorSpec("x", "float32"), (), False),
        (TensorSpec("x", "float32"), (-5, 7), False),
        (TensorSpec("x", "float32", (1 << 20, 1 << 20)), (1 << 20, 1 << 20), False),
    ],
)
def test_shapes_that_fit_pass_and_others_are_told_what_would(
    spec: TensorSpec, shape: tuple[int, ...], fits: bool
) -> None:
    if fits:
        assert check_shape(spec, shape) == shape
        assert draw(spec, "zeros", RNG, shape).shape == shape
    else:
        with pytest.raises(UsageError) as caught:
            check_shape(spec, shape)
        assert (shapes_text(spec) or "--shape") in caught.value.hint or "--shape" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (FIXED, "1x4"),
        (RANGED, "1x(2..)"),
        (ENUMERATED, "1x4 or 1x8"),
        (image_port(), "6x4"),
        (image_port(sizes=((6, 4), (2, 2))), "6x4 or 2x2"),
        (image_port(width_range=(2, 9), height_range=(4, 4)), "(2..9)x4"),
        (TensorSpec("x", "float32"), ""),
        (
            TensorSpec("x", "float32", enumerated=tuple((n,) for n in range(20))),
            "0 or 1 or 2 or 3 or 4 or 5 or 6 or 7 or …",
        ),
    ],
)
def test_shapes_in_words(spec: TensorSpec, text: str) -> None:
    assert shapes_text(spec) == text


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        ("float32", np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 4]], np.float32)),
        ("float16", np.array([[1, 70000.0, -70000.0, np.nan]]), np.array([[1, np.inf, -np.inf, np.nan]], np.float16)),
        ("int32", np.array([[1.0, 2.9, -2.9, 0.0]], np.float32), np.array([[1, 2, -2, 0]], np.int32)),
        ("int32", np.array([[True, False, True, True]]), np.array([[1, 0, 1, 1]], np.int32)),
        ("float64", [[1, 2, 3, 4]], np.array([[1, 2, 3, 4]], np.float64)),
        ("", np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 4]], np.float32)),
    ],
)
def test_values_take_the_ports_type(dtype: str, given: object, expected: np.ndarray) -> None:
    array = to_port(TensorSpec("x", dtype, (1, 4)), given)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    "given",
    [np.array([[2**31, 0, 0, 0]]), [[float("nan"), 0, 0, 0]], [["a", "b", "c", "d"]], [[1, 2], [3]], [[None] * 4]],
)
def test_values_that_the_type_cannot_hold_are_refused(given: object) -> None:
    with pytest.raises(UsageError, match="'x'"):
        to_port(TensorSpec("x", "int32", (1, 4)), given)


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
def test_a_number_fills_a_port_of_one_element(shape: tuple[int, ...]) -> None:
    assert to_port(TensorSpec("x", "float32", shape), 2.5).tolist() == np.full(shape, 2.5).tolist()
    with pytest.raises(UsageError):
        to_port(FIXED, 2.5)


def _picture(mode: str, width: int, height: int) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = RNG.integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels if bands > 1 else pixels[..., 0], mode)


@pytest.mark.parametrize("source", ["pil", "path", "array"])
@pytest.mark.parametrize(("layout", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0])])
def test_colour_pictures_become_planes_in_the_ports_order(
    tmp_path: Path, layout: str, order: list[int], source: str
) -> None:
    picture = _picture("RGB", 6, 4)
    picture.save(tmp_path / "p.png")
    value = {"pil": picture, "path": str(tmp_path / "p.png"), "array": np.asarray(picture)}[source]
    array = to_port(image_port(layout), value)
    assert array.dtype == np.float32 and array.shape == (1, 3, 4, 6)
    for plane, band in enumerate(order):
        np.testing.assert_array_equal(array[0, plane], np.asarray(picture)[..., band])


def test_transparency_is_ignored() -> None:
    picture = _picture("RGBA", 6, 4)
    expected = np.asarray(picture)[..., :3].transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(to_port(image_port(), picture), expected)


@pytest.mark.parametrize(("layout", "dtype"), [("GRAYSCALE", np.float32), ("GRAYSCALE_FLOAT16", np.float16)])
def test_grey_pictures(layout: str, dtype: type) -> None:
    grey = _picture("L", 6, 4)
    array = to_port(image_port(layout), grey)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[0, 0], np.asarray(grey))
    red = Image.new("RGB", (6, 4), (255, 0, 0))
    assert (to_port(image_port(layout), red) == 76).all()  # ITU-R 601-2: 0.299 of 255


def test_sixteen_bit_greys_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2570
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(to_port(image_port("GRAYSCALE"), tmp_path / "deep.png")[0, 0], deep // 257)


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    said: list[str] = []
    to_port(image_port(), _picture("RGB", 6, 4), said.append)
    to_port(image_port(width_range=(1, None), height_range=(1, None)), _picture("RGB", 9, 9), said.append)
    assert said == []


def test_a_picture_too_large_is_scaled_by_its_short_side_and_cropped_at_the_centre() -> None:
    # Four columns of flat colour, 40x8: scaled by half to 20x4, of which the middle 6 columns stay.
    bands = np.repeat(np.array([10, 90, 170, 250], np.uint8), 10)
    picture = Image.fromarray(np.tile(bands, (8, 1)))
    said: list[str] = []
    array = to_port(image_port("GRAYSCALE"), picture, said.append)
    assert array.shape == (1, 1, 4, 6)
    assert array[0, 0, :, 0].tolist() == [90] * 4 and array[0, 0, :, -1].tolist() == [170] * 4
    assert said == ["image for 'image': 40x8 scaled to 20x4 and cropped to 6x4"]


def test_a_picture_too_small_is_enlarged() -> None:
    array = to_port(image_port("GRAYSCALE"), Image.new("L", (1, 1), 7))
    assert array.shape == (1, 1, 4, 6) and (array == 7).all()


def test_a_picture_far_larger_than_its_file_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 4000)).save(tmp_path / "white.png")
    assert to_port(image_port(), str(tmp_path / "white.png")).shape == (1, 3, 4, 6)
    content = bytearray((tmp_path / "white.png").read_bytes())
    content[16:24] = (9000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(UsageError, match="9000x9000 pixels are too many"):
        to_port(image_port(), str(tmp_path / "bomb.png"))
    with pytest.raises(UsageError, match=r"scaled to 6x[0-9]+: .* too many"):
        to_port(image_port(), Image.new("L", (1, 1 << 24)))


def test_threads_that_read_pictures_leave_pils_limits_as_they_were(tmp_path: Path) -> None:
    for kind in ("png", "tiff", "bmp"):
        Image.new("RGB", (300, 200)).save(tmp_path / f"a.{kind}")
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    paths = [tmp_path / f"a.{kind}" for kind in ("png", "tiff", "bmp")] * 100
    with ThreadPoolExecutor(8) as pool:
        assert all(array.shape == (1, 3, 4, 6) for array in pool.map(lambda path: to_port(image_port(), path), paths))
    assert before == Image.MAX_IMAGE_PIXELS and list(warnings.filters) == filters


def test_an_icon_is_not_opened(tmp_path: Path) -> None:
    """Its own table says 16x16; what it holds PIL decodes without another word."""
    picture = io.BytesIO()
    Image.new("RGBA", (5000, 5000)).save(picture, "PNG")
    held = picture.getvalue()
    head = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(held), 22)
    (tmp_path / "x.png").write_bytes(head + held)
    with pytest.raises(UsageError, match=r"x\.png: an icon"):
        to_port(image_port(), str(tmp_path / "x.png"))
    assert Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS > 1 << 26


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 6))
    picture.putpixel((0, 5), (255, 0, 0))
    exif = picture.getexif()
    exif[0x112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / "x.png", exif=exif)
    found = to_port(image_port(), str(tmp_path / "x.png"))
    assert found.shape == (1, 3, 4, 6) and found[0, 0, 0, 0] == 255 and found.sum() == 255


@pytest.mark.parametrize("turned", [None, "exif", "xmp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_files_are_read_as_pil_reads_them(tmp_path: Path, mode: str, turned: str | None) -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (16, 24, 3), np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    given = {"exif": {"exif": exif}, "xmp": {"xmp": b'<x tiff:Orientation="6"/>'}, None: {}}[turned]
    size = (24, 16) if turned is None else (16, 24)
    picture.save(tmp_path / "p.jpg", progressive=mode == "L", **given)
    with Image.open(tmp_path / "p.jpg") as opened:
        wanted = np.asarray(opened.convert("RGB"))
    wanted = wanted if turned is None else np.rot90(wanted, -1)
    found = to_port(image_port(width=size[0], height=size[1]), tmp_path / "p.jpg")
    np.testing.assert_array_equal(found[0], wanted.transpose(2, 0, 1))


def test_jpeg_files_that_are_cut_or_claim_too_much_are_refused_without_a_warning(tmp_path: Path) -> None:
    held = io.BytesIO()
    _picture("RGB", 24, 16).save(held, "JPEG")
    content = held.getvalue()
    start = content.index(b"\xff\xc0") + 5  # height and width of the frame
    cases = {
        content[:-200]: "not a sound image",
        content[:20]: "not an image",
        content[:start] + struct.pack(">HH", 12000, 12000) + content[start + 4 :]: "12000x12000 pixels are too many",
    }
    for case, said in cases.items():
        (tmp_path / "p.jpg").write_bytes(case)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UsageError, match=rf"p\.jpg: {said}"):
                to_port(image_port(), tmp_path / "p.jpg")


def test_postscript_is_not_run(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(UsageError, match="EPS files are programs"):
        to_port(image_port(), str(tmp_path / "x.png"))


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_that_claims_more_than_its_archive_holds(tmp_path: Path, packing: int) -> None:
    """None is made of the size that its header claims: 36 TB would be no memory, but no error of ours either."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (9 * 10**12,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packing) as archive:
        archive.writestr("x.npy", member.getvalue() + bytes(36))
    with pytest.raises(LoadError, match="should have 36,000,000,000,000 bytes"):
        to_port(TensorSpec("x", "float32", (9,)), tmp_path / "x.npz")


def test_an_upright_photo_is_upright_here_too(tmp_path: Path) -> None:
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the top row becomes the right column
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    array = to_port(image_port(), tmp_path / "p.png")
    assert (array[0, :, :, -1] == 255).all() and (array[0, :, :, :-1] == 0).all()


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(UsageError, match="image"):
        to_port(image_port(), tmp_path / "p.png")


def test_a_file_that_is_not_there_is_a_load_error(tmp_path: Path) -> None:
    for spec in (image_port(), FIXED):
        with pytest.raises(LoadError, match="no such file"):
            to_port(spec, str(tmp_path / "none.png"))


def test_an_image_for_a_tensor_port_is_refused_with_a_way_out(tmp_path: Path) -> None:
    _picture("RGB", 6, 4).save(tmp_path / "p.png")
    with pytest.raises(UsageError) as caught:
        to_port(FIXED, tmp_path / "p.png")
    assert "--image x" in caught.value.hint


def test_finished_planes_pass_through() -> None:
    planes = RNG.uniform(0, 255, (1, 3, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(to_port(image_port("BGR"), planes), planes)


def test_random_values_are_those_of_the_seed_and_in_range() -> None:
    one, two = (draw(FIXED, "random", np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, draw(FIXED, "random", np.random.default_rng(6)))
    pixels = draw(image_port(width=64, height=64), "random", RNG)
    assert pixels.min() >= 0 and pixels.max() <= 255 and (pixels == pixels.round()).all() and pixels.std() > 50
    tokens = draw(TensorSpec("ids", "int32", (1, 100)), "random", RNG)
    assert tokens.dtype == np.int32 and set(tokens.ravel()) == {0, 1}


def test_a_value_to_be_drawn_is_drawn() -> None:
    assert (to_port(FIXED, Drawn("zeros")) == 0).all()
    assert to_port(FIXED, Drawn("random")).std() > 0


def test_unknown_names_are_told_the_right_ones() -> None:
    with pytest.raises(UsageError, match="no input is named 'imag'") as caught:
        port_named([image_port(), FIXED], "imag")
    assert caught.value.hint == "did you mean 'image'? inputs: image, x"


@pytest.mark.parametrize("kind", ["string", "dictionary", "sequence"])
def test_ports_of_other_kinds_take_no_arrays(kind: str) -> None:
    with pytest.raises(UsageError, match="text" if kind == "string" else kind):
        to_port(TensorSpec("t", "string to float64", kind=kind), np.float32(1.5))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_a_kind_of_input_that_is_not_supported_is_not_drawn_either(kind: str) -> None:
    spec = TensorSpec("s", "", kind="string")  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(UsageError, match="input 's' takes a string, which cannot be drawn at random"):
        draw(spec, kind, np.random.default_rng(0))  # type: ignore[arg-type]


def test_a_shape_that_the_file_asks_for_is_drawn_within_its_budget() -> None:
    spec = TensorSpec("x", "float32", (1, 3, 12000, 12000))
    with pytest.raises(UsageError, match="warrant"):
        draw(spec, "zeros", np.random.default_rng(0))
    with pytest.raises(UsageError, match="warrant"):
        draw(spec, "zeros", np.random.default_rng(0), stored=1_000_000)
    wide = TensorSpec("x", "float32", (1, 3, 2048, 2048))  # of a small model
    with pytest.raises(UsageError, match="warrant"):
        draw(wide, "zeros", np.random.default_rng(0))
    assert draw(wide, "zeros", np.random.default_rng(0), stored=1_000_000).shape == wide.shape
    assert draw(wide, "zeros", np.random.default_rng(0), stored=None).shape == wide.shape
