"""What the default verification sees: forty packages (fixtures/planted.py), each sound and with five planted faults.

    python benchmarks/faults.py [FAMILY ...]

Prints a Markdown line a package: what was said of the sound one, and which faults were caught; last, the shares. Exits
with 1 if a sound package is said to differ or under 95 % of the faults are caught.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Convert, verify and count."""
    warnings.simplefilter("ignore")
    from fixtures.planted import FAMILIES, FAULTS, SIZES

    families = [name for name in FAMILIES if name in sys.argv[1:]] or list(FAMILIES)
    caught = planted = wronged = 0
    print(f"| package | sound | {' | '.join(FAULTS)} |\n|---|---|{'---|' * len(FAULTS)}")
    for family in families:
        for size in SIZES:
            said = [verdict(family, size, fault) for fault in ("", *FAULTS)]
            wronged += said[0] is not True
            planted += len(FAULTS)
            caught += sum(found is not True for found in said[1:])
            cells = " | ".join("missed" if found is True else "caught" for found in said[1:])
            print(f"| {family}-{size} | {'agrees' if said[0] else said[0]} | {cells} |", flush=True)
    print(f"\ncaught {caught} of {planted} ({caught / planted:.1%}); sound packages said to differ: {wronged}")
    sys.exit(wronged > 0 or caught < 0.95 * planted)


def verdict(family: str, size: int, fault: str) -> bool | None:
    """Return what the default verification says of the package made with ``fault``, held against the sound module."""
    from fixtures.planted import Planted, inputs
    from tlkit.core.convert.attempts import attempt
    from tlkit.core.convert.order import Checks, Order
    from tlkit.core.convert.result import Clock
    from tlkit.core.convert.source.source import Source
    from tlkit.core.convert.tools.build import Recipe
    from tlkit.core.convert.tools.targets import choose_target
    from tlkit.core.convert.verify import verify
    from tlkit.ports.parse import parse_ports

    sound, made = Planted(family, size).eval(), Planted(family, size, fault).eval()
    ports = parse_ports(inputs(size), ())
    recipe = Recipe("f16", choose_target(None, ports, ()))
    clock, checks = Clock(lambda what, share: None), Checks(None, None, 0, True, False)
    order = Order(sound, Source(sound, family), ports, recipe, (), (), checks, clock, False)
    order.prepare()
    order.choose(False)
    planted = Order(
        made, Source(made, family), ports, recipe, (), (), Checks(None, None, 0, False, False), clock, False
    )
    planted.study = order.study
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.mlpackage"
        done = attempt(planted, path, recipe, False)
        return verify(path, sound, done.traced, order.cases, order.settings(recipe)).passed


if __name__ == "__main__":
    main()
