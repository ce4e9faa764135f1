"""Teach coremltools the mends, through its public ``register_torch_op``, and tell which torch ops it then translates.

Ops that the installed coremltools already has are left to it, so that a newer version is never overridden;
``test_teach.py`` finds mends that are no longer needed.
Importing this module does not import coremltools; its functions do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from tlkit.core.convert.tools import ops
from tlkit.core.convert.tools.kit.mends import MENDS, REPLACED, Mend, Translate


@cache
def install() -> tuple[str, ...]:
    """Teach coremltools the mends that it needs, once in a process; return their names."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    from tlkit.core.convert.tools.expand import expand

    ops.load()
    _name_types()
    taught = []
    for key, entry in MENDS.items():
        had = _TORCH_OPS_REGISTRY.get_func(entry.op)
        if had is not None and not _replaces(entry):
            continue
        taught.append(key)
        if not entry.traced:
            continue
        if had is not None and entry.translate and entry.applies:
            _register(entry.op, partial(_guarded, entry, had), override=True)
            continue
        if had is not None:
            REPLACED[entry.op] = had
        _register(entry.op, entry.translate or partial(expand, entry, decompositions), override=entry.replaces)
    return tuple(taught)


def _guarded(entry: Mend, otherwise: Translate, context: Any, node: Any) -> None:
    assert entry.translate is not None and entry.applies is not None
    given = [context[name] if isinstance(name, str) and name in context else name for name in node.inputs]
    if not entry.applies(given) or entry.translate(context, node) is NotImplemented:
        otherwise(context, node)


def _name_types() -> None:
    """Name types that coremltools' tables lack: a cast to bfloat16 is one to f32, as float64 is; complex ones."""
    import numpy as np
    import torch
    from coremltools.converters.mil.frontend.torch import utils

    code = 15  # torch's number of bfloat16
    utils.NUM_TO_TORCH_DTYPE.setdefault(code, torch.float32)
    utils.NUM_TO_NUMPY_DTYPE.setdefault(code, np.float32)
    utils.NUM_TO_DTYPE_STRING.setdefault(code, "fp32")
    utils.TORCH_DTYPE_TO_NUM.setdefault(torch.bfloat16, utils.TORCH_DTYPE_TO_NUM[torch.float32])
    for number, dtype in ((9, torch.complex64), (10, torch.complex128)):
        utils.TORCH_DTYPE_TO_NUM.setdefault(dtype, number)
        utils.NUM_TO_TORCH_DTYPE.setdefault(number, torch.complex64)


def supports(kind: str, *, exported: bool = False) -> bool:
    """Whether coremltools translates the torch op ``kind``, named as a graph names it (``aten::new_ones``).

    ``exported``: in torch.export's graphs, where it finds less, and where torch itself decomposes what is composed.
    """
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    # It tidies the name when it reads the graph and again when it looks it up, which is how it finds `__and__`. Of
    # exported graphs it wants to know each op beforehand, and tidies once.
    name = sanitize_op_kind(kind)
    if exported:
        return name in _TORCH_OPS_REGISTRY.name_to_func_mapping and name not in _decomposed()
    return _TORCH_OPS_REGISTRY.get_func(name) is not None or _decompose(kind)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions for torch.export, by overload: mends in torch's terms, and ops that coremltools
    lacks."""
    return dict(_decompositions())


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    import torch

    install()
    table = {
        op: rule
        for op, rule in torch.export.default_decompositions().items()
        if hasattr(op, "name") and not supports(op.name(), exported=True)
    }
    table.update(_composites())
    for name in install():
        compose = MENDS[name].compose
        if compose is not None:
            table.update(dict.fromkeys(_overloads(name), compose))
    return table


def _composites() -> dict[Any, Callable[..., Any]]:
    """Return torch's own rules for what it leaves whole in the graphs that it exports, and coremltools lacks."""
    from torch._decomp import decomposition_table

    rules: dict[Any, Callable[..., Any]] = decomposition_table
    named = [overload for name in _COMPOSITE for overload in _overloads(name) if overload in rules]
    return {overload: rules[overload] for overload in named if not supports(overload.name(), exported=True)}


def _overloads(packet: str) -> list[Any]:
    import torch

    found = getattr(torch.ops.aten, packet, None)
    every = [getattr(found, name) for name in found.overloads()] if found is not None else []
    return [overload for overload in every if not overload._schema.is_mutable]


def _replaces(entry: Mend) -> bool:
    return entry.replaces and _tools() <= _numbers(entry.coremltools)


@cache
def _tools() -> tuple[int, int]:
    # Once: each question reads the installed package's metadata from disk.
    return _numbers(version("coremltools"))


def _register(op: str, translate: Translate, *, override: bool = False) -> None:
    from coremltools.converters.mil import register_torch_op

    named = _named(translate, op.replace(".", "_"))
    register_torch_op(named, torch_alias=[op] if op != named.__name__ else None, override=override)


_TAKEN_APART: set[str] = set()
_COMPOSITE = frozenset(
    """
    unsafe_chunk chunk tensor_split hsplit vsplit dsplit vstack dstack row_stack column_stack kron tensordot inner ger
    block_diag cartesian_prod movedim moveaxis swapaxes swapdims fliplr flipud ravel unflatten square float_power
    gru_cell lstm_cell rnn_tanh_cell rnn_relu_cell pairwise_distance trapezoid cumulative_trapezoid nanmean absolute
    negative positive greater greater_equal less less_equal not_equal multiply divide subtract arctan2 chain_matmul
    linalg_multi_dot linalg_matmul matrix_power take_along_dim channel_shuffle native_channel_shuffle bilinear
    isreal arcsin arccos arctan arcsinh arccosh arctanh addmv broadcast_to concatenate view_as
    isclose msort trapz diagonal_scatter narrow_copy sum_to_size alpha_dropout
    feature_alpha_dropout combinations l1_loss kl_div cross_entropy_loss cosine_embedding_loss hinge_embedding_loss
    triplet_margin_loss margin_ranking_loss poisson_nll_loss vander fft_fftshift fft_ifftshift data logdet
    diagflat diag as_strided_scatter _upsample_nearest_exact3d gradient pdist
    special_expit special_logit special_exp2 special_expm1 special_erf special_erfc special_erfinv special_log1p
    special_round special_sinc special_psi special_digamma special_gammaln special_multigammaln special_polygamma
    special_i0 special_logsumexp special_softmax special_log_softmax special_xlogy special_ndtr
    """.split()  # noqa: SIM905  # a list of names
)
"""Ops that torch composes of others, in C++, which coremltools or a mend translates; of the rest one cannot know."""


def _decomposed() -> set[str]:
    return _TAKEN_APART | {
        name for name in install() if MENDS[name].compose and MENDS[name].traced and name not in REPLACED
    }


def _decompose(kind: str) -> bool:
    """Have coremltools decompose an op of a trace that it does not know, as torch does; False where torch cannot."""
    from tlkit.core.convert.tools.expand import decomposition, expand

    namespace, _, name = kind.partition("::")
    name = name.removesuffix("_")
    known = _COMPOSITE | {packet.__name__.partition(".")[0] for packet in _python_rules()}
    if namespace != "aten" or name not in known or not any(decomposition(op) for op in _overloads(name)):
        return False
    _register(name, partial(expand, None, decompositions))
    _TAKEN_APART.add(name)
    return True


@cache
def _python_rules() -> tuple[Any, ...]:
    """Return the ops that torch takes apart on the way to its core ones, which ends in none that it made up itself."""
    import torch
    from torch._decomp import core_aten_decompositions

    core = core_aten_decompositions()
    return tuple(op for op in list(core) if isinstance(op, torch._ops.OpOverload) and not op._can_decompose())


def _named(translate: Translate, name: str) -> Translate:
    """Return ``translate`` under another name: coremltools registers a function by its own."""

    def call(context: Any, node: Any) -> None:
        translate(context, node)

    call.__name__ = name
    return call


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
