"""The torch operators that an untrusted program may call: those that only compute.

``aten::save`` writes a file and ``aten::from_file`` maps one; others print, wait, send to other processes, or load. So
allowed operators are listed: namespaces that only compute and, in ``aten``, to which later versions of torch may add
unreviewed ones, the operators that take text, since text is how an operator would be given a path.
"""

from __future__ import annotations

import re

NAMESPACES = {"aten", "prims", "quantized", "_quantized", "quantized_decomposed", "torchvision", "mkldnn", "onednn"}
"""Those of which tlkit knows what is in them."""

_EFFECTS = {"save", "load", "from_file", "_print", "wait", "record_stream", "_cufft_set_plan_cache_max_size"}
_TEXT = """
    Delete Float Int __contains__ __getitem__ __interpolate __upsample _assert_async _assert_scalar _convolution_mode
    _functional_assert_async _functional_assert_scalar _linalg_check_errors _linalg_eigh _linalg_svd
    _mixed_dtypes_linear _segment_reduce_backward _set_item _sparse_mm _sparse_mm_reduce_impl
    _sparse_semi_structured_linear _sparse_semi_structured_tile _upsample add any capitalize center clear conv1d conv2d
    conv3d copy count device dict div div_ divide divide_ einsum endswith eq expandtabs fft_fft fft_fft2 fft_fftn
    fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft fft_irfft2
    fft_irfftn fft_rfft fft_rfft2 fft_rfftn find format ge gelu gelu_ gelu_backward get get_autocast_dtype gt index
    index_reduce index_reduce_ isalnum isalpha isdecimal isdigit isidentifier islower isnumeric isprintable isspace
    istitle isupper items join keys le len linalg_cond linalg_eigh linalg_eigvalsh linalg_lstsq linalg_matrix_norm
    linalg_norm linalg_qr linalg_svd linalg_svdvals list ljust lower lstrip lt meshgrid nanquantile ne ord pad
    pad_sequence partition percentFormat pop popitem quantile remove replace rfind rindex rjust rpartition rsplit rstrip
    scatter scatter_ scatter_reduce scatter_reduce_ searchsorted segment_reduce setdefault slice sort sorted split
    splitlines startswith stft istft strip swapcase title update upper values warn zfill
"""
_PRIMITIVES = """
    AutogradAdd AutogradZero ConstantChunk Constant CreateObject DictConstruct Enter EnumName EnumValue Exit GetAttr If
    ImplicitTensorToNum ListConstruct ListUnpack Loop ModuleContainerIndex NumToTensor RaiseException SetAttr
    StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs annotate data device dtype grad id
    index is_cpu is_cuda is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_nested is_quantized is_sparse
    is_sparse_csr is_vulkan is_xla is_xpu isinstance itemsize layout max min name nbytes ndim rangelist range_input
    requires_grad shape tolist type unchecked_cast unchecked_unwrap_optional
"""
_TAKING_TEXT, _PRIM = frozenset(_TEXT.split()), frozenset(_PRIMITIVES.split())


def computes_only(name: str, schema: str) -> bool:
    """Whether the operator ``name`` (``aten::add``) with torch's ``schema``, as torch prints it, only computes."""
    namespace, _, short = name.partition("::")
    if namespace == "prim":
        return short in _PRIM
    if namespace not in NAMESPACES or short in _EFFECTS:
        return False
    # Of the other namespaces none takes a path; names of algorithms are all the text there is.
    return namespace != "aten" or short in _TAKING_TEXT or not _takes_text(schema)


def _takes_text(schema: str) -> bool:
    arguments = schema.partition("(")[2].rpartition("->")[0]
    # A schema that cannot be read counts as taking text.
    return not arguments or re.search(r"\bstr\b", arguments) is not None
