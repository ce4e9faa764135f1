"""HTML pages from Jinja templates (``templates/``): one look for all, whatever is shown is text unless a chart made it.

Every page stands by itself: style and script are in it, nothing is fetched. Light, dark and print follow the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import __version__
from tlkit.cli.sink.stream import clean

if TYPE_CHECKING:
    from jinja2 import Environment


class Cell(NamedTuple):
    """A table's cell that is not a plain figure.

    ``kind`` is a class of the style: ``text`` (to the left), ``why`` (softer, and folded), ``good``, ``fair``,
    ``poor``, ``code`` (lines as they are). ``span`` counts columns.
    """

    text: str
    kind: str = ""
    span: int = 1


class Table(NamedTuple):
    """A table: the first column is text, the others are figures unless a :class:`Cell` says otherwise."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]


class Bar(NamedTuple):
    """A bar of a chart: ``length`` in the unit of its neighbours, ``told`` stands at its end."""

    label: str
    length: float
    told: str


class Piece(NamedTuple):
    """A piece of a strip: ``kind`` is the unit that colours it, ``size`` stands beside its neighbours'."""

    kind: str
    size: float
    told: str


def render(template: str, **values: Any) -> str:
    """Return the page of ``templates/<template>``; strings are escaped, and cleaned of what hides or turns text."""
    return _environment().get_template(template).render(version=__version__, **values)


def chart(svg: str) -> Any:
    """Mark ``svg``, whose texts are escaped already, as a picture that goes into a page as it is."""
    from markupsafe import Markup

    return Markup(svg)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tlkit.cli.sink"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    return clean(value) if type(value) is str else value
