"""Fourier transforms: at fixed lengths coremltools' own, else products with matrices that the model computes.

And complex values that are made, written, cast and raised: constants, parts of tensors, types, powers of e.
"""

from __future__ import annotations

from typing import Any

from tlkit.core.convert.tools.kit.mends import mend
from tlkit.core.convert.tools.kit.reading import dtype_name, inputs_of, values_of
from tlkit.core.convert.tools.ops.complexes import (
    add_complex,
    call_of,
    given_of,
    has_complex,
    is_complex,
    parts,
    product_of,
)

_TRANSFORMS = {"fft2": "fftn", "ifft2": "ifftn", "rfft2": "rfftn", "irfft2": "irfftn"}


def _transform(kind: str) -> None:
    many = kind.endswith(("n", "2"))

    @mend(
        f"fft_{kind}", "coremltools has it over any axes, and wants all four arguments", replaces=not kind.endswith("2")
    )
    def translate(context: Any, node: Any) -> None:
        names = "self s dim norm" if many else "self n dim norm"
        given = inputs_of(context, node, names)
        if many and given["dim"] is None and kind.endswith("2"):
            given["dim"] = _constant([-2, -1])
        if not many and given["dim"] is None:
            given["dim"] = _constant(-1)
        inner = f"fft_{_TRANSFORMS.get(kind, kind)}"
        if _flexes(given):
            _at_run_time(context, node, given, _TRANSFORMS.get(kind, kind))
            return
        inputs = list(given.values())
        context.add(call_of(context, node, inner, inputs, f"{node.name}_transform"), torch_name=node.name)


def _constant(value: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    return mb.const(val=value)


for _kind in ("fft", "ifft", "rfft", "irfft", "fftn", "ifftn", "rfftn", "irfftn", "fft2", "ifft2", "rfft2", "irfft2"):
    _transform(_kind)


def _known(size: Any) -> bool:
    return isinstance(size, int) or str(size).isdigit()


def _axes(given: dict[str, Any], rank: int) -> list[int]:
    named = [int(value) % rank for value in values_of(given["dim"])]
    if named:
        return named
    lengths = given.get("s")
    count = rank if lengths is None else len(lengths) if isinstance(lengths, list | tuple) else lengths.shape[0]
    return list(range(rank - count, rank))


def _flexes(given: dict[str, Any]) -> bool:
    """Whether a length along the transform is known only when the model runs."""
    shape = parts(given["self"])[0].shape
    asked = given.get("n") if "n" in given else given.get("s")
    asked = asked if isinstance(asked, list | tuple) else [asked]
    unknown = any(hasattr(size, "sym_type") and size.val is None for size in asked)
    return unknown or any(not _known(shape[axis]) for axis in _axes(given, len(shape)))


def _asked(given: dict[str, Any], axes: list[int]) -> list[Any]:
    """Return the length asked for along each axis: a number, a value of coremltools', or None."""
    from coremltools.converters.mil import Builder as mb

    asked = given["n"] if "n" in given else given["s"]
    if asked is None:
        return [None] * len(axes)
    if hasattr(asked, "sym_type") and asked.val is None and asked.rank == 1:
        return [mb.gather(x=asked, indices=index, axis=0) for index in range(len(axes))]
    listed = asked if isinstance(asked, list | tuple) else [asked]
    if len(listed) == 1 and getattr(listed[0], "val", None) is not None:
        return [int(value) for value in values_of(listed[0])]
    plain = [getattr(item, "val", item) for item in listed]
    return [item if value is None else int(value) for item, value in zip(listed, plain, strict=True)]


def _at_run_time(context: Any, node: Any, given: dict[str, Any], inner: str) -> None:
    """Transform axis by axis; of a real signal the last one first, back to a real one the last one last."""
    from coremltools.converters.mil import Builder as mb

    real, imag = parts(given["self"])
    axes = _axes(given, real.rank)
    asked = _asked(given, axes)
    norm = str(getattr(given["norm"], "val", given["norm"]) or "backward")
    imag = imag if hasattr(imag, "sym_type") else None
    back, half = inner.startswith("i"), "r" in inner
    order = list(zip(axes, asked, strict=True))
    for step, (axis, length) in enumerate(order if back else order[::-1]):
        last = half and axis == axes[-1] and (step == len(axes) - 1 if back else step == 0)
        if last and back:
            imag = imag if imag is not None else mb.mul(x=real, y=0.0)
            context.add(mb.identity(x=_to_signal(real, imag, axis, length, norm), name=node.name))
            return
        real, imag = _along(real, imag, axis, length, norm, back=back, half=last)
    add_complex(context, node, real, imag)


def _length_of(x: Any, axis: int) -> Any:
    from coremltools.converters.mil import Builder as mb

    if _known(x.shape[axis]):
        return int(x.shape[axis])
    return mb.squeeze(x=mb.slice_by_size(x=mb.shape(x=x), begin=[axis], size=[1]), axes=[0])


def _along(real: Any, imag: Any, axis: int, asked: Any, norm: str, *, back: bool, half: bool) -> tuple[Any, Any]:
    """Return the parts of the transform along ``axis``; ``half``: without the bins that a real signal has twice."""
    from coremltools.converters.mil import Builder as mb

    if asked is not None and str(getattr(asked, "sym_val", asked)) != str(real.shape[axis]):
        real = _fitted(real, axis, asked)
        imag = _fitted(imag, axis, asked) if imag is not None else None
    length = _length_of(real, axis)
    bins = mb.add(x=mb.floor_div(x=length, y=2), y=1) if half else length
    cosines, sines = _waves(bins, length, norm, back=back)
    first, second = _times(real, cosines, axis), _times(real, sines, axis)
    # Forward waves are cos - i sin, those of the way back cos + i sin.
    second = second if back else mb.mul(x=second, y=-1.0)
    if imag is None:
        return first, second
    across, along = _times(imag, sines, axis), _times(imag, cosines, axis)
    return mb.sub(x=first, y=across) if back else mb.add(x=first, y=across), mb.add(x=second, y=along)


def _to_signal(real: Any, imag: Any, axis: int, asked: Any, norm: str) -> Any:
    """Return the real signal of ``asked`` elements (twice the bins less one, if None) that a half spectrum is of."""
    from coremltools.converters.mil import Builder as mb

    if asked is None:
        asked = mb.mul(x=mb.sub(x=_length_of(real, axis), y=1), y=2)
    elif hasattr(asked, "sym_type") and asked.rank:
        asked = mb.squeeze(x=asked)
    asked = mb.cast(x=asked, dtype="int32") if hasattr(asked, "sym_type") else asked
    bins = mb.add(x=mb.floor_div(x=asked, y=2), y=1)
    real, imag = (_fitted(part, axis, bins) for part in (real, imag))
    cosines, sines = _waves(asked, bins, norm, back=True, period=asked)
    index = mb.range_1d(start=0, end=bins, step=1)
    # In a half spectrum every bin stands for two but the first and, of an even length, the last.
    single = mb.logical_or(x=mb.equal(x=index, y=0), y=mb.equal(x=mb.mul(x=index, y=2), y=asked))
    twice = mb.sub(x=2.0, y=mb.cast(x=single, dtype="fp32"))
    cosines, sines = mb.mul(x=cosines, y=twice), mb.mul(x=sines, y=twice)
    return mb.sub(x=_times(real, cosines, axis), y=_times(imag, sines, axis))


def _fitted(x: Any, axis: int, length: Any) -> Any:
    """Return ``x`` with ``axis`` cut to ``length``, or continued by zeros."""
    from coremltools.converters.mil import Builder as mb

    length = mb.squeeze(x=length) if hasattr(length, "sym_type") and length.rank else length
    before = _length_of(x, axis)
    places = mb.range_1d(start=0, end=length, step=1)
    inside = mb.cast(x=mb.less(x=places, y=before), dtype="fp32")
    taken = mb.gather(x=x, indices=mb.minimum(x=places, y=mb.sub(x=before, y=1)), axis=axis)
    shape = [-1 if at == axis else 1 for at in range(x.rank)]
    return mb.mul(x=taken, y=mb.reshape(x=inside, shape=shape))


def _waves(rows: Any, columns: Any, norm: str, *, back: bool, period: Any = None) -> tuple[Any, Any]:
    """Return cosines and sines (rows, columns) of row * column whole turns over ``period``, scaled by ``norm``.

    Turns are reduced to less than half a one in whole numbers first: f16 holds no large angle.
    """
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    period = columns if period is None else period
    down = mb.expand_dims(x=mb.range_1d(start=0, end=rows, step=1), axes=[1])
    across = mb.expand_dims(x=mb.range_1d(start=0, end=columns, step=1), axes=[0])
    turns = mb.mod(x=mb.mul(x=down, y=across), y=period)
    over = mb.cast(x=mb.greater(x=mb.mul(x=turns, y=2), y=period), dtype="int32")
    turns = mb.sub(x=turns, y=mb.mul(x=over, y=period))
    length = mb.cast(x=period, dtype="fp32")
    angle = mb.mul(x=mb.real_div(x=mb.cast(x=turns, dtype="fp32"), y=length), y=np.float32(2 * np.pi))
    waves = mb.cos(x=angle), mb.sin(x=angle)
    if norm == "ortho":
        return tuple(mb.real_div(x=wave, y=mb.sqrt(x=length)) for wave in waves)
    if norm == ("backward" if back else "forward"):
        return tuple(mb.real_div(x=wave, y=length) for wave in waves)
    return waves


def _times(x: Any, matrix: Any, axis: int) -> Any:
    """Return ``x`` with ``axis`` multiplied by ``matrix`` (after, before)."""
    from coremltools.converters.mil import Builder as mb

    if axis == x.rank - 1:
        return mb.matmul(x=x, y=matrix, transpose_y=True)
    order = [*range(axis), *range(axis + 1, x.rank), axis]
    turned = mb.matmul(x=mb.transpose(x=x, perm=order), y=matrix, transpose_y=True)
    return mb.transpose(x=turned, perm=[order.index(place) for place in range(x.rank)])


@mend("istft", "each frame's transform and their overlapping sum: one transposed convolution")
def _istft(context: Any, node: Any) -> None:
    """Multiply spectra (..., bins, frames) by the inverse transform times the window, and add frames that overlap.

    What the windows' squares add up to is divided out, as torch does.
    """
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    names = "self n_fft hop_length win_length window center normalized onesided length return_complex"
    given = inputs_of(context, node, names)
    plain = {name: getattr(value, "val", value) for name, value in given.items() if name != "self"}
    size = int(plain["n_fft"])
    width = int(plain["win_length"] or size)
    hop = int(plain["hop_length"] or width // 4)
    window = np.ones(width, np.float32) if given["window"] is None else plain["window"]
    if window is None or bool(plain["return_complex"]) or plain["onesided"] is False:
        raise ValueError("istft with a window that the model computes, of both sides, or to complex numbers")
    # torch puts a window that is shorter than a frame in its middle.
    left = (size - width) // 2
    window = np.pad(np.asarray(window, np.float64), (left, size - width - left))
    real, imag = parts(given["self"])
    rank = real.rank
    if rank == 2:
        real, imag = (mb.expand_dims(x=part, axes=[0]) for part in (real, imag))
    frames = real.shape[-1]
    if not isinstance(frames, int) and not str(frames).isdigit():
        raise ValueError("istft of a number of frames that is known only when the model runs")
    cosines, sines = _inverse(size, window, bool(plain["normalized"]))
    both = mb.concat(values=[real, imag], axis=1)  # N x (2 * bins) x frames
    weight = np.concatenate([cosines, sines])[:, None, :].astype(np.float32)  # (2 * bins) x 1 x size
    sums = mb.conv_transpose(x=both, weight=weight, strides=[hop])  # N x 1 x samples
    begin, end, share = _trimmed(window, size, hop, int(frames), plain)
    kept = mb.slice_by_index(
        x=sums, begin=[0, 0, begin], end=[0, 0, end], begin_mask=[True, True, False], end_mask=[True, True, False]
    )
    kept = mb.squeeze(x=mb.mul(x=kept, y=share), axes=[1] if rank == 3 else [0, 1])
    context.add(mb.identity(x=kept, name=node.name))


def _inverse(size: int, window: Any, normalized: bool) -> tuple[Any, Any]:
    """Return what each bin's real and imaginary part add to a frame: two tables (bins, size)."""
    import numpy as np

    bins = np.arange(size // 2 + 1)[:, None]
    angle = 2 * np.pi * bins * np.arange(size)[None] / size
    # A half spectrum has these bins for one, all others for two.
    twice = np.where((bins == 0) | (2 * bins == size), 1.0, 2.0)
    scale = twice * window / (np.sqrt(size) if normalized else size)
    return np.cos(angle) * scale, -np.sin(angle) * scale


def _trimmed(window: Any, size: int, hop: int, frames: int, plain: dict[str, Any]) -> tuple[int, int, Any]:
    """Return where the signal begins and ends in the sum of frames, and what to multiply it by."""
    import numpy as np

    total = np.zeros((frames - 1) * hop + size)
    for frame in range(frames):
        total[frame * hop : frame * hop + size] += window**2
    begin = size // 2 if plain["center"] is None or bool(plain["center"]) else 0
    length = plain["length"]
    end = len(total) - begin if length is None else begin + int(length)
    if end > len(total):
        raise ValueError("istft to a length beyond its frames")
    return begin, end, (1 / total[begin:end]).astype(np.float32)


_WRITTEN = {"slice_scatter": 2, "select_scatter": 2, "_internal_op_tensor_inplace_copy": 2, "index_put": 3}
"""What writes a tensor into another one, and how many of its inputs to look for them in."""


def _written(kind: str, count: int) -> None:
    @mend(kind, "of complex numbers: each part by itself", replaces=True, applies=has_complex)
    def translate(context: Any, node: Any) -> None:
        given = given_of(context, node)
        halves = []
        for half in (0, 1):
            inputs = [_spread_half(value, half) for value in given[:count]] + given[count:]
            halves.append(call_of(context, node, kind, inputs, f"{node.name}_{'imag' if half else 'real'}"))
        add_complex(context, node, *halves)


def _spread_half(value: Any, half: int) -> Any:
    """Return a part of ``value``: of a real tensor 0 is the imaginary one."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    if half and hasattr(value, "sym_type") and not is_complex(value) and types.is_float(value.dtype):
        return mb.mul(x=value, y=0.0)
    return parts(value)[half] if is_complex(value) else value


for _kind, _count in _WRITTEN.items():
    _written(_kind, _count)


_COMPLEX = (8, 9, 10)
"""torch's numbers of its complex types."""


def _number_of(value: Any) -> Any:
    plain = getattr(value, "val", value)
    array = getattr(plain, "ndim", 0) != 0
    # Not the number of a type, but a flag, a text or a tensor.
    if isinstance(plain, bool | str) or str(getattr(plain, "dtype", "")) == "bool" or array:
        return None
    return plain


@mend("to", "of complex numbers, or to them", replaces=True, applies=bool)
@mend("_to_copy", "the same, as torch.export records it", replaces=True, applies=bool)
def _to(context: Any, node: Any) -> Any:
    """Leave complex numbers as they are; a real type takes their real part, and a complex one adds 0 to it."""
    from coremltools.converters.mil import Builder as mb

    given = given_of(context, node)
    # In a trace the device may come before the type.
    asked = given[1:3] if not node.kwinputs else [inputs_of(context, node, "self dtype")["dtype"]]
    wanted = next((number for number in map(_number_of, asked) if number is not None), None)
    if not is_complex(given[0]) and wanted not in _COMPLEX:
        return NotImplemented
    real, imag = parts(given[0])
    if wanted is None or wanted in _COMPLEX:
        add_complex(context, node, real, imag if hasattr(imag, "sym_type") else mb.mul(x=real, y=0.0))
    else:
        context.add(mb.cast(x=real, dtype=dtype_name(wanted), name=node.name))
    return None


_MADE = {"zeros": (0.0, "size"), "ones": (1.0, "size"), "zeros_like": (0.0, "self"), "ones_like": (1.0, "self")}


def _made(kind: str, value: float, first: str) -> None:
    @mend(kind, "complex numbers: a constant", replaces=True, applies=bool)
    def translate(context: Any, node: Any) -> Any:
        import numpy as np
        from coremltools.converters.mil import Builder as mb

        given = inputs_of(context, node, f"{first} dtype")
        like = is_complex(given[first])
        number = _number_of(given["dtype"])
        if number not in _COMPLEX and not (like and number is None):
            return NotImplemented
        size = list(given[first].shape) if first == "self" else values_of(given[first])
        if not all(str(length).isdigit() for length in size):
            raise ValueError(f"{kind} of complex numbers in a shape that is known only when the model runs")
        whole = np.full([int(length) for length in size], value, np.complex64)
        context.add(mb.const(val=whole, name=node.name))
        return None


for _kind, (_value, _first) in _MADE.items():
    _made(_kind, _value, _first)


@mend("exp", "of complex numbers: a length and an angle", replaces=True, applies=has_complex)
def _exp(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    real, imag = parts(inputs_of(context, node, "self")["self"])
    length = mb.exp(x=real)
    add_complex(context, node, mb.mul(x=length, y=mb.cos(x=imag)), mb.mul(x=length, y=mb.sin(x=imag)))


@mend("square", "of complex numbers: written out", replaces=True, applies=has_complex)
def _square(context: Any, node: Any) -> None:
    x = inputs_of(context, node, "self")["self"]
    add_complex(context, node, *product_of(context, node, "mul", x, x))
