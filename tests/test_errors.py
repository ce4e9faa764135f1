"""One helper turns exceptions into text: what it makes of each, and that nothing else does."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlkit.errors import LoadError, TlkitError, one_line, reason, told

SCRIPT = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript (most recent call last):
  File "<string>", line 3, in forward
RuntimeError: mat1 and mat2 shapes cannot be multiplied
"""

# PyTorch 2.11's own words, on an H100.
FULL = (
    "CUDA out of memory. Tried to allocate 32.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 26.62 MiB is "
    "free. Process 3636 has 78.20 GiB memory in use. Including non-PyTorch memory, this process has 966.00 MiB memory "
    "in use. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n\n  first  \nsecond"), "first"),
        (ValueError(""), "ValueError"),
        (ValueError(), "ValueError"),
        (ValueError(" \n "), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (KeyError(), "KeyError"),
        (AssertionError(), "AssertionError"),
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate 4 GiB"), "not enough memory: Unable to allocate 4 GiB"),
        (
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
            "not enough memory: CUDA error: out of memory",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "not enough memory: CUBLAS_STATUS_ALLOC_FAILED",
        ),
        (
            torch.OutOfMemoryError(FULL),
            "not enough memory: CUDA out of memory. Tried to allocate 32.00 MiB. GPU 0 has a total capacity of "
            "79.18 GiB of which 26.62 MiB is free",
        ),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "No space left on device"),
        (OSError("a pipe"), "a pipe"),
        (LoadError("x.bin: cut short"), "x.bin: cut short"),
        (RuntimeError(SCRIPT), "mat1 and mat2 shapes cannot be multiplied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_reason_is_one_line_and_never_nothing(error: BaseException, text: str | None) -> None:
    said = reason(error)
    assert said == text or text is None
    assert said.strip() and len(said.splitlines()) == 1


def test_all_lines_and_the_type_are_told_where_asked_for() -> None:
    assert reason(ValueError("first\n  second"), whole=True) == "first second"
    assert reason(ValueError("first\n  second"), named=True) == "ValueError: first"
    assert reason(ValueError(), named=True) == "ValueError"


def test_memory_that_ran_out_is_told_as_that_by_whomever() -> None:
    with pytest.raises(MemoryError) as numpy:
        np.empty(1 << 55, np.float32)
    with pytest.raises(RuntimeError) as allocator:
        torch.empty(1 << 55)
    assert reason(numpy.value).startswith("not enough memory: Unable to allocate")
    asked = f"not enough memory: you tried to allocate {1 << 57} bytes"
    assert reason(allocator.value) == told(allocator.value).message == asked


@given(st.text(), st.text())
def test_an_error_of_ours_is_one_line_whatever_it_quotes(message: str, hint: str) -> None:
    error = TlkitError(f"x: {message}.", hint)
    assert len(error.message.splitlines()) == 1 and len(error.hint.splitlines()) <= 1


def test_only_line_breaks_are_taken_out() -> None:
    assert one_line("a  b.mlmodel: \n\n  gone") == "a  b.mlmodel: gone"
    assert one_line("name" * 10_000, 100).startswith("namename") and len(one_line("name" * 10_000, 100)) < 110


def test_any_exception_becomes_one_of_ours() -> None:
    kept = LoadError("x", "y")
    assert told(kept) is kept
    assert told(PermissionError(errno.EACCES, "Permission denied", "/x")).message == "/x: Permission denied"
    assert told(KeyError("a")).message == "internal error: KeyError: 'a'"
    assert told(KeyError("a")).exit_code == 4


def test_nothing_else_turns_exceptions_into_text(root: Path) -> None:
    """No ``str(error)``, ``f"{error}"`` or ``error.strerror`` of a caught exception outside errors.py."""
    found = []
    for path in sorted((root / "tlkit").rglob("*.py")):
        if path.name == "errors.py":
            continue
        for handler in ast.walk(ast.parse(path.read_text())):
            if isinstance(handler, ast.ExceptHandler) and handler.name:
                found += [f"{path}:{node.lineno}" for node in ast.walk(handler) if _spells(node, handler.name)]
    assert not found, f"use tlkit.errors.reason: {found}"


def _spells(node: ast.AST, name: str) -> bool:
    def named(value: ast.AST) -> bool:
        return isinstance(value, ast.Name) and value.id == name

    if isinstance(node, ast.FormattedValue):
        return named(node.value)
    if isinstance(node, ast.Attribute):
        return named(node.value) and node.attr in ("strerror", "args", "msg")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("str", "repr", "format") and any(map(named, node.args))
    return False
