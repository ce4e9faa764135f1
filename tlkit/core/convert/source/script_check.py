"""Check that a TorchScript archive's code only computes: ``torch.jit.load`` runs ``__setstate__``, and running a script
runs operators that may write files.

The text is checked before torch sees it: for code that would run while it loads, and for nesting that would overflow
the stack of torch's parser, which crashes the process. Operators are checked in the graph that torch makes of the text,
before any of it runs: there each has its full name, whatever the text calls it.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from tlkit.core.convert.source.operators import computes_only
from tlkit.errors import LoadError, reason
from tlkit.formats.files.zip import Zip
from tlkit.formats.torch.objects import View
from tlkit.formats.torch.pickle import read_pickle
from tlkit.formats.torch.walk import find_tensors

_CODE_LIMIT = 1 << 26  # bytes of one file of code
_MEMBERS = re.compile(
    r"data\.pkl|constants\.pkl|attributes\.pkl|bytecode\.pkl|mobile_debug_handles\.pkl|traced_inputs\.pkl|version|"
    r"byteorder|\.format_version|\.storage_alignment|(data|constants|code|extra|bytecode|traced_inputs|\.data)/.*"
)
_GLOBALS = re.compile(
    r"__torch__\.(?!torch\.classes\.).+|torch\._utils\._rebuild_\w+|torch\.jit\._pickle\.\w+|torch\.\w*Storage|"
    r"torch\.storage\.\w*Storage|collections\.OrderedDict|torch\.device|torch\.per_\w+|torch\.\w*int\w*|"
    r"torch\.serialization\._get_layout"
)
_QUANTIZED = re.compile(r"\btorch\s*\.\s*classes\s*\.\s*quantized\b")
_PACKED = "holds weights that torch's quantization has packed, which code in the file unpacks while it loads"
# A quoted string with its escapes, within one line.
_STRINGS = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
_CALLED_UNSEEN = re.compile(r"\bdef\s+(__(?!(?:init|len|getitem|contains|call)__)\w+__)|\btorch\s*\.\s*classes\b")
_NAME = r"(?!torch\b)\w+"
_GRAD_MODE = re.compile(  # what torch's no_grad and enable_grad do at a `with`, on names that are not torch's
    r"^([ \t]*)def __(?:enter|exit)__\((?![^()]*\btorch\b(?!\.))[^()=]*\) -> NoneType:\n"
    rf"(?:\1[ \t]+(?:(?:self\.)?{_NAME} = (?:self\.)?{_NAME}|(?:self\.)?{_NAME} = torch\.is_grad_enabled\(\)|"
    rf"(?:{_NAME} = )?torch\.set_grad_enabled\({_NAME}\)|return None)\n)+"
    r"(?=\1\S|\n*(?:\S|\Z))",  # and no more than that
    re.MULTILINE,
)
_PARTS = re.compile(r"[(\[{]|[)\]}]|[,:;]|\n|[-+*/%<>=&|^~.@]|\b(?:and|or|not|if|else|in|is|for|lambda)\b")
_DEEPEST = 1000  # nested or chained parts of one expression; torch's parser overflows its stack at some thousands
_INDENT = 200  # blanks before a statement
_TRUST = "to run it all the same, if you know who made it: --trust"


def check_archive(archive: Zip) -> None:
    """Raise :class:`LoadError` if loading ``archive`` could run code of it."""
    archive.require_one_reading()
    roots = {name.partition("/")[0] for name in archive.names}
    path = archive.file.path
    for name in archive.names:
        inner = name.partition("/")[2].casefold()
        if len(roots) != 1 or not _MEMBERS.fullmatch(inner):
            raise LoadError(f"{path}: its member '{name[:100]}' is not one that TorchScript has", _TRUST)
        if inner.startswith("code/") and inner.endswith(".py"):
            _check_code(path, name, bytes(archive.read(name, _CODE_LIMIT)))
        elif inner.endswith(".pkl") and "/" not in inner:
            _check_pickle(path, name, archive.read(name, _CODE_LIMIT))
        elif inner.endswith(".debug_pkl"):
            _check_lengths(path, name, bytes(archive.read(name, _CODE_LIMIT)))


def check_operators(path: Path, module: nn.Module) -> None:
    """Raise :class:`LoadError` if a method of ``module`` (a loaded script) calls operators that do more than
    compute."""
    for owner in module.modules():
        script: Any = owner._c
        hooks = (*script._get_forward_hooks(), *script._get_forward_pre_hooks())
        methods = [script._get_method(name) for name in script._method_names()]
        for method in (*methods, *hooks):
            for node in nodes(method.inlined_graph):
                if not computes_only(node.kind(), str(node.schema())):
                    raise _refused(path, method.name, f"calls {node.kind()}, which may do more than compute")


def nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of ``graph`` and of all blocks in them."""
    blocks = [graph]
    while blocks:
        for node in blocks.pop().nodes():
            yield node
            blocks.extend(node.blocks())


def _check_code(path: Path, name: str, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    # _STRINGS does not know triple quotes; torch writes none.
    if "\0" in text or "'''" in text or '"""' in text:
        raise _refused(path, name, "is not written as TorchScript is")
    text = _STRINGS.sub(" 0 ", text).replace("#", " ")  # torch reads types in comments
    # A quote that is left was never closed.
    if any(mark in text for mark in ("'", '"', "\\")):
        raise _refused(path, name, "is not written as TorchScript is")
    if _QUANTIZED.search(text):
        raise _refused(path, name, _PACKED)
    found = _CALLED_UNSEEN.search(_GRAD_MODE.sub("", text))
    if found:  # __setstate__ runs while it loads, __lt__ when a list is sorted: no operator in sight
        what = f"defines {found[1]}, which runs without being called" if found[1] else "uses a class of torch.classes"
        raise _refused(path, name, what)
    # An elif is an if inside an else: each nests one level deeper.
    if max(_depth(text), text.count("elif")) > _DEEPEST or re.search(rf"^[ \t]{{{_INDENT}}}", text, re.MULTILINE):
        raise _refused(path, name, "nests its code too deeply for torch's parser")


def _depth(text: str) -> int:
    """Return an upper bound on the depth of expressions in ``text``: brackets and operators between commas, all
    nested."""
    deepest, outer, here = 0, [], 0
    total = 0  # of `outer`
    for match in _PARTS.finditer(text):
        part = match[0]
        if part in "([{":
            outer.append(here + 1)
            total += here + 1
            here = 0
        elif part in ")]}":
            here = outer.pop() if outer else 0
            total -= here
        elif part in ",:;" or (part == "\n" and not outer):
            here = 0
        elif part != "\n":
            here += 1
        deepest = max(deepest, total + here)
    return deepest


def _check_pickle(path: Path, name: str, data: memoryview) -> None:
    found = read_pickle(data, f"{path}: {name}")
    for imported in found.imports:
        if _QUANTIZED.search(imported):
            raise _refused(path, name, _PACKED)
        if not _GLOBALS.fullmatch(imported):
            raise _refused(path, name, f"names {imported[:100]}, which is not part of a plain script")
    for _, tensor in find_tensors(found.root, f"{path}: {name}").tensors:  # LoadError for sizes that make no sense
        if isinstance(tensor, View) and tensor.swells:
            raise _refused(path, name, f"makes much of little: a tensor repeats {tensor.room:,} bytes")


def _check_lengths(path: Path, name: str, data: bytes) -> None:
    """Refuse a pickle whose parts claim more bytes than it has: torch allocates them before checking."""
    try:
        for _ in pickletools.genops(data):
            pass
    except (ValueError, UnicodeDecodeError, IndexError, AttributeError) as error:
        hint = "save it again with torch.jit.save"
        raise LoadError(f"{path}: damaged TorchScript: {name}: {reason(error)[:100]}", hint) from error


def _refused(path: Path, name: str, what: str) -> LoadError:
    return LoadError(f"{path}: {name} {what}", _TRUST)
