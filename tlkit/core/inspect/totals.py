"""What a model costs, in two figures, for its summary; :mod:`tlkit.core.inspect.costs` has it by operation.

Apart from that module, and without dataclasses: making them costs `inspect` more than counting does.
"""

from __future__ import annotations

from typing import NamedTuple

from tlkit.formats.coreml.package import Package


class Totals(NamedTuple):
    """Multiply-accumulates and the most bytes that values take at once; ``least``: these are lower bounds."""

    macs: int
    peak_bytes: int
    least: bool


def program_totals(package: Package, function: str | None = None) -> Totals | None:
    """Return what one function of a package's program costs, the default one for None; None without a program."""
    if package.program is None:
        return None
    from tlkit.mil.survey.liveness import peak  # late, as all that only some files need
    from tlkit.mil.work import steps

    known = package.program.functions
    name = function or package.default_function or ("main" if "main" in known else next(iter(known), ""))
    if name not in known:
        return None
    macs, open_ = 0, False
    for step in steps(known[name]):
        macs += step.macs
        open_ = open_ or any(None in (item.kind.shape or ()) for item in (*step.read, *step.results))
    most = peak(known[name])
    return Totals(macs, most.nbytes if most else 0, open_)
