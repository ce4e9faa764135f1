"""The one family of errors a user can cause or meet, each with the exit code that a script will see.

Exit codes: 0 done, 1 a valid negative answer, 2 usage, 3 cannot load or not available here, 4 conversion or
execution failed, 130 interrupted. A message is one line that names the file (or flag) and the reason; a hint is one
line that says what to do next.
"""

from __future__ import annotations


class TlkitError(Exception):
    """An error to show without a traceback: ``message`` says what is wrong, ``hint`` what to do about it."""

    exit_code = 4

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TlkitError):
    """The call itself is wrong: an unknown input name, a shape that does not fit, an output path that exists."""

    exit_code = 2


class LoadError(TlkitError):
    """A file is missing, damaged, incomplete or of a kind that tlkit does not read."""

    exit_code = 3


class UnavailableError(TlkitError):
    """A compute unit, platform or optional package that is not here."""

    exit_code = 3


class ConversionError(TlkitError):
    """A source model could not be turned into a package."""

    exit_code = 4


class ExecutionError(TlkitError):
    """A model that loaded failed while it ran."""

    exit_code = 4
