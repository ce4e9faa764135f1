"""``--engine``, apart from the other options: it asks the table of engines what there is, which the others need not."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tlkit.core.model.engines import modes


def engine_option() -> Any:
    """Return the option; the table in ``tlkit/core/model/engines.py`` says what it may name."""
    known = modes()
    return typer.Option(
        "--engine",
        metavar="|".join(known),
        help="Run op by op, or compiled.",
        autocompletion=lambda incomplete: [mode for mode in known if mode.startswith(incomplete)],
    )


Engine = Annotated[str, engine_option()]
