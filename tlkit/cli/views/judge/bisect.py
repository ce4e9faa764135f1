"""Where two models part, as a card."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.judge.bisect import Bisection


def bisection_card(found: Bisection) -> RenderableType:
    """Return the answer of ``--bisect``."""
    from tlkit.cli.sink.card import card

    styles = {"first to stray": "bold red" if found.first is not None else "", "because": "yellow"}
    return card([(label, text, styles.get(label, "")) for label, text in found.lines()])
