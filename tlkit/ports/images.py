"""Convert pictures to what a Core ML image port takes: layout, size and channel order."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.errors import LoadError, TlkitError, UsageError, reason
from tlkit.ports.shapes import allows_size
from tlkit.types import ImageSpec, Layout, TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Size = tuple[int, int]
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"))
"""How the names of picture files end, in a folder of samples."""
_BYTES = {"L": 1, "1": 2}
"""Bytes per pixel in memory where not 4, by PIL mode; 1-bit pixels become grey levels on the way."""
_ANY = 1 << 26
"""Bytes that any picture may take in memory: 16 megapixels in colour, 67 in greyscale."""
_FOLD = 50
"""Bytes in memory for each byte of the file: a photograph as a JPEG has ten to thirty. A plain area has a thousand, and
is as good in fewer pixels."""
_ICONS = (b"\0\0\1\0", b"\0\0\2\0", b"icns")
"""How files begin that hold pictures of sizes of their own, which PIL decodes while it opens them."""
_PLAIN = ("JPEG", "PNG")
"""Formats whose files hold one picture, of the size that they say."""
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
"""How those begin."""
_TURNED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""Where PIL finds which way up a JPEG file's picture is."""
_ALONE = threading.Lock()
_PROGRAMS = ("EPS",)
"""Formats that are programs, which PIL hands to Ghostscript to be run."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture's file as it is stored in something else: where (for errors), and its bytes."""

    name: str
    content: bytes


def scaled(spec: TensorSpec, pixels: Array) -> Array:
    """Return pixels (C, H, W) as the model that the port is of gets them, (1, C, H, W) f32: with its scale and bias."""
    bias = np.asarray(spec.intake.bias, np.float32)[:, None, None]
    ratios = np.asarray(spec.intake.ratios or 1.0, np.float32).reshape(-1, 1, 1)
    found: Array = (pixels.astype(np.float32) * (np.float32(spec.intake.scale) * ratios) + bias)[None]
    return found


def is_pil(value: Any) -> bool:
    """Whether ``value`` is a PIL image (PIL is not imported to find out)."""
    image = sys.modules.get("PIL.Image")
    return image is not None and isinstance(value, image.Image)


def is_picture(value: Any) -> bool:
    """Whether ``value`` is a picture: a PIL image, a path, an :class:`EncodedPicture`, or an array of pixels (height,
    width[, channels], uint8)."""
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4)))
    return isinstance(value, str | Path | EncodedPicture) or is_pil(value)


def to_array(spec: TensorSpec, value: Any, note: Callable[[str], None] | None = None) -> Array:
    """Return a picture as (1, channels, height, width), 0..255, in the port's channel order and dtype.

    Transparency is ignored. A picture of a size that the port does not take is scaled to cover the port's own size and
    cropped at the centre, and ``note`` is told. Raises UsageError where ``value`` is not a sound picture, LoadError
    where its file is missing.
    """
    assert spec.image is not None
    picture = _size(spec, _open(spec, value), note)
    pixels = np.asarray(_mode(picture, spec.image.layout))
    # PIL gives [H, W] or [H, W, C]; a port takes [C, H, W].
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if spec.image.layout == "BGR":
        planes = planes[::-1]
    made: Array = np.empty((1, *planes.shape), np.dtype(spec.dtype or "float32"))
    for into, plane in zip(made[0], planes, strict=True):  # plane by plane: at once it takes several times as long
        into[...] = plane
    return made


def to_pixels(layout: Layout, values: Array) -> Array:
    """Return the pixels that (..., channels, height, width) values of 0..255 in ``layout`` stand for.

    (height, width) for grey levels, (height, width, 3) in RGB for both colour layouts, as PIL has them; rounded and
    clipped to uint8, but for GRAYSCALE_FLOAT16, which stays as it is, in float32.
    """
    planes = values.reshape(values.shape[-3:])
    if layout == "GRAYSCALE_FLOAT16":
        return np.asarray(planes[0], np.float32)
    whole: Array = np.empty(planes.shape, np.uint8)
    for plane, into in zip(planes, whole, strict=True):  # one at a time: a large picture's floats need four times more
        into[...] = np.clip(np.rint(plane), 0, 255)
    if layout == "GRAYSCALE":
        grey: Array = whole[0]
        return grey
    # PIL has no BGR: Core ML gives and takes RGB images for such ports too, and swaps them itself.
    return np.ascontiguousarray(whole[:: -1 if layout == "BGR" else 1].transpose(1, 2, 0))


def to_picture(layout: Layout, values: Array) -> Picture:
    """Return the PIL image that values stand for, as :func:`to_pixels` reads them."""
    from PIL import Image

    return Image.fromarray(to_pixels(layout, values))


def _open(spec: TensorSpec, value: Any) -> Picture:
    from PIL import Image

    if isinstance(value, np.ndarray):
        return Image.fromarray(value)
    if isinstance(value, EncodedPicture):
        return _decoded(spec, value)
    if not isinstance(value, str | Path):
        assert isinstance(value, Image.Image)
        return value
    if not Path(value).is_file():
        raise LoadError(f"{value}: no such file", f"give the input '{spec.name}' an image")
    return _decoded(spec, _stored(spec, Path(value)))


def plain_picture(path: str | Path) -> EncodedPicture | None:
    """Read a JPEG or PNG file, told by its first bytes; None for any other file, and where there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_PNG))
            return EncodedPicture(str(path), head + file.read()) if head.startswith((_JPEG, _PNG)) else None
    except OSError:
        return None


def _stored(spec: TensorSpec, path: Path) -> EncodedPicture:
    """Read a file whole: PIL asks a file for as many bytes as a damaged length says, there or not."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            # Icons are told by their head before all of a large file is read.
            return EncodedPicture(str(path), head if head in _ICONS else head + file.read())
    except OSError as error:
        raise _no_picture(spec, str(path), error) from None


def _no_picture(spec: TensorSpec, name: str, error: Exception) -> UsageError:
    from PIL import UnidentifiedImageError

    known = not isinstance(error, UnidentifiedImageError)
    said = f"not a sound image ({reason(error)})" if known else "not an image"
    return UsageError(f"{name}: {said}", f"the input '{spec.name}' takes a PNG, JPEG or the like")


def _decoded(spec: TensorSpec, stored: EncodedPicture) -> Picture:
    """Read a stored picture; UsageError where it is not one, or claims far more pixels than its bytes can hold."""
    from PIL import Image, ImageOps

    path, content = stored.name, stored.content
    try:
        if content[:4] in _ICONS:
            raise UsageError(f"{path}: an icon, which holds pictures of several sizes", "give a PNG or JPEG")
        picture = _jpeg(content) if content.startswith(_JPEG) else None
        if picture is None:
            with _warnings_raised():
                picture = Image.open(BytesIO(content))
                if picture.format in _PROGRAMS:
                    said = f"{path}: {picture.format} files are programs, which tlkit does not run"
                    raise UsageError(said, "give a PNG or JPEG")
                _check_size(path, picture.size, picture.mode, len(content))
                if picture.format not in _PLAIN:
                    with _at_most(_room(len(content)) // _BYTES.get(picture.mode, 4)):
                        picture.load()
        else:
            _check_size(path, picture.size, picture.mode, len(content))
        with picture:
            picture.load()  # of most files here, where several threads can
            if picture.format != "JPEG" or picture.info.keys() & _TURNED:
                ImageOps.exif_transpose(picture, in_place=True)
            return picture
    except TlkitError:
        raise
    except Exception as error:  # PIL's decoders raise whatever the damage leads to
        raise _no_picture(spec, path, error) from None


def _jpeg(content: bytes) -> Picture | None:
    """Open a JPEG file without PIL's warnings of its size, for which threads would have to wait for each other; None
    where there is anything to say of it."""
    from PIL import Image

    Image.preinit()
    factory, _ = Image.OPEN["JPEG"]
    try:
        picture = factory(BytesIO(content), "")
    except Exception:  # PIL's own words for it come from Image.open
        return None
    return picture if picture.format == "JPEG" else None


def _check_size(what: str, size: Size, mode: str, stored: int = 0) -> None:
    """Raise UsageError where a picture's pixels would take more memory than its file's ``stored`` bytes justify."""
    from PIL import Image

    nbytes = size[0] * size[1] * _BYTES.get(mode, 4)
    most = Image.MAX_IMAGE_PIXELS
    if (most is not None and size[0] * size[1] > most) or nbytes > _room(stored):
        raise UsageError(f"{what}: {size[0]}x{size[1]} pixels are too many", "scale the picture down first")


def _room(stored: int) -> int:
    return max(_ANY, _FOLD * stored)


@contextmanager
def _warnings_raised() -> Iterator[None]:
    """Let PIL raise where it only warns, of pictures up to twice its limit; one thread at a time, since what tells PIL
    and Python so is the whole process's."""
    from PIL import Image

    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _at_most(pixels: int) -> Iterator[None]:
    """Let PIL refuse pictures of more ``pixels`` in the body: some files hold others, of which they say nothing."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels if before is None else min(pixels, before)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _mode(picture: Picture, layout: str) -> Picture:
    """Return the picture in the port's colour mode; 16-bit grey levels are scaled to 8 bits (PIL would clip them)."""
    from PIL import Image

    if picture.mode == "F" and layout == "GRAYSCALE_FLOAT16":
        return picture
    if picture.mode.startswith("I"):
        # 65535 / 257 = 255: the whole 16-bit range maps to the whole 8-bit one.
        picture = Image.fromarray((np.asarray(picture, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    wanted = "RGB" if layout in ("RGB", "BGR") else "L"
    return picture if picture.mode == wanted else picture.convert(wanted)


def _size(spec: TensorSpec, picture: Picture, note: Callable[[str], None] | None) -> Picture:
    from PIL import Image

    assert spec.image is not None
    if allows_size(spec.image, picture.size):
        return picture
    width, height = _wanted(spec.image)
    # The larger ratio, so that the port's size is covered and only edges are cropped.
    scale = max(width / picture.width, height / picture.height)
    across, down = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
    if note:
        cropped = f" and cropped to {width}x{height}" if (across, down) != (width, height) else ""
        note(f"image for '{spec.name}': {picture.width}x{picture.height} scaled to {across}x{down}{cropped}")
    if picture.mode in ("P", "1", "LA", "RGBA", "PA"):  # palettes and dots do not interpolate; alpha is ignored
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    _check_size(f"the image for '{spec.name}', scaled to {across}x{down}", (across, down), picture.mode)
    left, top = (across - width) // 2, (down - height) // 2
    grown = picture.resize((across, down), Image.Resampling.BILINEAR)
    return grown.crop((left, top, left + width, top + height))


def _wanted(image: ImageSpec) -> Size:
    """Return the port's default size, or the nearest one that it takes: some descriptions' defaults are out of
    range."""
    own = (image.width, image.height)
    if allows_size(image, own):
        return own
    if image.sizes:
        return image.sizes[0]
    return _nearest(own[0], image.width_range), _nearest(own[1], image.height_range)


def _nearest(side: int, allowed: tuple[int, int | None] | None) -> int:
    low, high = allowed or (1, None)
    return max(low, 1, side if high is None else min(side, high))
