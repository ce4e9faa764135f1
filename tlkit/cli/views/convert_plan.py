"""What ``tlkit convert --plan`` answers: the placement of what would be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit.cli.sink import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.inspect.plan import Plan


def answer(sink: output.Sink, result: Plan) -> None:
    """Print the predictions as ``inspect --placement`` does."""
    from tlkit.core.inspect.placement import document

    def show() -> RenderableType:
        from tlkit.cli.views.placement import placement_view

        return placement_view(f"{result.source} (a plan: nothing was written)", result.predictions, per_op=False)

    sink.answer({"source": result.source, "placement": [document(item) for item in result.predictions]}, show)
