"""What was done to a package: its precision, its weights, or a search; each has a view of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def show_part(part: Any) -> RenderableType:
    """Return a Compressed, a MixedPrecision or an AutoCompressed as text."""
    from tlkit.cli.views.judge import compressed, mixed, searched

    # By name: to ask for the classes themselves would import what makes them.
    views = {"Compressed": compressed, "MixedPrecision": mixed, "AutoCompressed": searched}
    shown: RenderableType = views[type(part).__name__].show(part)
    return shown
