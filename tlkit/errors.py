"""The errors that a user can cause or meet, each with the exit code that a script will see.

Exit codes: 0 done, 1 a valid negative answer, 2 usage, 3 cannot load or not available here, 4 conversion or
execution failed, 130 interrupted. A message is one line that names the file (or flag) and the reason; a hint is one
line that says what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Patterns are text, not compiled: re keeps those it has compiled, and `inspect` starts without compiling these.
_BREAKS = r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*"  # every line end of str.splitlines, with the blanks around it
NO_MEMORY = "not enough memory"
"""How what :func:`reason` says of memory that ran out begins."""
_ALLOCATOR = (
    r"DefaultCPUAllocator: can't allocate memory: (you tried to allocate \d+ bytes)"
    # What CUDA and its libraries say where not even they have room to begin; torch's own class is not raised then.
    r"|(CUDA error: out of memory|(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED)"
)
_ENOUGH_SAID = r"(?<= is free)\. "
"""What follows in CUDA's message are other processes, and advice about variables of the environment."""
_SCRIPT = "Traceback of TorchScript"
_RAISED = r"^(?:builtins\.)?\w+(?:Error|Exception): "  # how TorchScript's last line names an exception
_LONGEST = 1000  # characters of a message, which may quote names from a file that are as long as the file


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return ``text`` on one line, with its middle cut out where it has more than ``longest`` characters."""
    line = re.sub(_BREAKS, " ", text.strip())
    return line if len(line) <= longest else f"{line[: longest * 2 // 3]} … {line[-longest // 4 :]}"


class TlkitError(Exception):
    """An error to show without a traceback: ``message`` says what is wrong, ``hint`` what to do about it.

    Both are one line each, whatever the names in them hold.
    """

    exit_code = 4

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = one_line(message)
        self.hint = one_line(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def _repr_html_(self) -> str:
        from tlkit.words import card_html  # only a notebook asks for it

        return card_html(type(self).__name__, [("what", self.message), ("what to do", self.hint)])


class UsageError(TlkitError):
    """The call itself is wrong: an unknown input name, a shape that does not fit, an output path that exists."""

    exit_code = 2


class LoadError(TlkitError):
    """A file is missing, damaged, incomplete or of a kind that tlkit does not read."""

    exit_code = 3


class IncompleteError(TlkitError):
    """The output would lack part of what the source holds; nothing is written unless the user allows that."""

    exit_code = 1


class UnavailableError(TlkitError):
    """A compute unit, platform or optional package that is not here."""

    exit_code = 3


class ConversionError(TlkitError):
    """A source model could not be converted; ``notes`` is what was found on the way."""

    exit_code = 4
    notes: tuple[str, ...] = ()


class ExecutionError(TlkitError):
    """A model that loaded failed while it ran."""

    exit_code = 4


class WriteError(TlkitError):
    """An output could not be written: the folder is read-only, the disk is full, or the result cannot be read back."""

    exit_code = 4


CONTRADICTIONS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)
"""What parts of a file that do not fit each other end as: a text where a number should be, arrays of other sizes."""


@contextmanager
def contradictions(
    said: str, hint: str, kind: type[TlkitError] = LoadError, also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn :data:`CONTRADICTIONS` in the body, and what is ``also`` one there, into a ``kind`` that says so.

    Its message begins with ``said``. A TlkitError passes.
    """
    try:
        yield
    except (*CONTRADICTIONS, *also) as error:
        raise kind(f"{said} ({reason(error)})", hint) from error


def reason(error: BaseException, *, whole: bool = False, named: bool = False) -> str:
    """Return an exception's message on one line. Nothing else in tlkit turns exceptions into text.

    That is the message's first line, or with ``whole`` all lines joined; the type's name if the message is empty, or
    before it with ``named``. Of TorchScript's messages, which begin with a traceback, it is the end; of an OSError the
    system's text without the path; running out of memory reads the same whether Python, numpy or torch ran out.
    """
    if isinstance(error, TlkitError):
        return error.message
    kind, text = type(error).__name__, str(error)
    refused = re.search(_ALLOCATOR, text)
    # torch's own class is recognised by name, so that torch need not be imported.
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or refused:
        said = refused[1] or refused[2] if refused else re.split(_ENOUGH_SAID, text)[0]
        return one_line(f"{NO_MEMORY}: {said}").rstrip(": ")
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [index for index, line in enumerate(lines) if re.match(_RAISED, line)] if _SCRIPT in text else []
    if raised:  # to the end, since a message may have several lines
        lines = [" ".join([re.sub(_RAISED, "", lines[raised[-1]]), *lines[raised[-1] + 1 :]])]
    elif lines and not whole:
        lines = lines[:1]
    if isinstance(error, KeyError) or named or not lines:  # a KeyError's text is only the key
        lines = [f"{kind}:", *lines] if lines else [kind]
    return one_line(" ".join(lines))


def told(error: BaseException) -> TlkitError:
    """Return any exception as a TlkitError: the form in which the command line shows it."""
    if isinstance(error, TlkitError):
        return error
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        hint = "check the path, its permissions and the space left on the disk"
        return TlkitError(f"{where}{reason(error)}", hint)
    if (absent := _absent(error)) is not None:
        return absent
    text = reason(error, named=True)
    if text.startswith(NO_MEMORY):
        return TlkitError(text, "use a smaller input or a larger machine")
    hint = "this is a bug in tlkit: run it again with TLKIT_DEBUG=1 and report what it prints"
    return TlkitError(f"internal error: {text}", hint)


_PACKAGES = {
    "torch": "pip install torch --index-url https://download.pytorch.org/whl/cpu, or for a GPU: pip install torch"
}
"""How a package is installed whose name by itself does not say it best."""


def _absent(error: BaseException) -> UnavailableError | None:
    """Return what to say of a package that is not installed; None for any other exception."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or name == "tlkit":
        return None
    return UnavailableError(f"this needs {name}, which is not installed", _PACKAGES.get(name, f"pip install {name}"))


def packed(error: Exception) -> dict[str, str]:
    """Return an exception as plain data, to be told to another process; :func:`unpacked` is the way back."""
    error = _absent(error) or error
    if isinstance(error, TlkitError):
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"kind": "ExecutionError", "message": reason(error, whole=True, named=True), "hint": ""}


def unpacked(data: dict[str, str]) -> TlkitError:
    """Return the error of :func:`packed`, of its own class where that is one of this module's."""
    kind = _KINDS.get(data["kind"], ExecutionError)
    return kind(data["message"], data["hint"])


_KINDS: dict[str, type[TlkitError]] = {
    "TlkitError": TlkitError,
    "UsageError": UsageError,
    "LoadError": LoadError,
    "IncompleteError": IncompleteError,
    "UnavailableError": UnavailableError,
    "ConversionError": ConversionError,
    "WriteError": WriteError,
}
