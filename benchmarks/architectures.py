"""The architectures of fixtures/, each converted by one command with nothing guessed, and how it came out.

    python benchmarks/architectures.py [NAME ...] [--group transformers] [--jobs 2] [--timeout 300] [--results FILE]

Prints a Markdown table, a line a kind: how it was captured (traced, or by torch.export where tlkit chose that itself),
seconds to convert and to verify, the package's size, the worst output's largest absolute error, cosine and
signal-to-noise ratio beside PyTorch, and the verdict: agrees, DIFFERS with its cause, or the reason why not; last, the
totals. Each runs in a process of its own with a time limit. `--results` names a file of JSON lines: what it has is
printed and not run again, what is run is added to it, so that a long run can be done in parts (`--again` runs what did
not agree). `--only` says how to capture; with `--most-failures` it exits 1 where more do not agree.
Kinds that need a package that is not installed (timm, torchvision) are said, and not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HEAD = "| kind | parameters | captured | convert | verify | size | max abs | cosine | SNR | verdict |"


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind came out: seconds, bytes, errors of the worst output (None where there is no package)."""

    name: str
    group: str
    verdict: str
    reason: str = ""
    captured: str = ""
    parameters: int = 0
    seconds: float = 0.0
    verify: float = 0.0
    size: int = 0
    max_abs: float | None = None
    cosine: float | None = None
    snr_db: float | None = None

    def line(self) -> str:
        """Return the table's line."""
        figures = ["", "", ""]
        if self.max_abs is not None and self.cosine is not None and self.snr_db is not None:
            figures = [f"{self.max_abs:.1e}", f"{self.cosine:.6f}", f"{self.snr_db:.0f} dB"]
        made = [f"{self.seconds:.1f} s", f"{self.verify:.1f} s", f"{self.size / 1e3:.0f} kB"] if self.size else [""] * 3
        told = f"{self.verdict}: {self.reason}" if self.reason else self.verdict
        cells = [self.name, f"{self.parameters / 1e3:.0f}k", self.captured, *made, *figures, told.replace("|", "/")]
        return f"| {' | '.join(cells)} |"


def main() -> int:
    """Convert each and print its line; what cannot be converted says why."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from fixtures.catalogue import catalogue, missing

    known = catalogue()
    options = _options(list(known))
    names = options.names or [name for name, kind in known.items() if options.group in (None, kind.group)]
    print(f"{HEAD}\n{'|---' * HEAD.count(' | ')}|---|")
    rows = _saved(options.results, names, options.again)
    for row in rows:
        print(row.line())
    here = [name for name in names if missing(known[name]) is None]
    done = {row.name for row in rows}
    for row in _run([name for name in here if name not in done], options):
        rows.append(row)
        print(row.line(), flush=True)
        if options.results:
            with options.results.open("a") as file:
                print(json.dumps(asdict(row)), file=file)
    print(f"\n{totals(rows)}")
    absent = sorted({found for name in names if (found := missing(known[name]))})
    if absent:
        print(f"{len(names) - len(here)} kinds were left out: not installed: {', '.join(absent)}")
    return int(
        options.most_failures is not None and sum(row.verdict != "agrees" for row in rows) > options.most_failures
    )


def _options(known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*known, []], metavar="NAME")
    parser.add_argument("--group", choices=["timm", "transformers", "others"])
    parser.add_argument("--only", choices=["trace", "export"], help="capture in this way, and do not try the other")
    parser.add_argument("--precision", default="f16", choices=["f16", "f32"])
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a kind")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines: what it has is not run again")
    parser.add_argument("--again", action="store_true", help="run again what did not agree")
    parser.add_argument("--most-failures", type=int, metavar="N", help="exit 1 where more than N do not agree")
    return parser.parse_args()


def _saved(path: Path | None, names: Sequence[str], again: bool) -> list[Row]:
    """Return the last row of each of ``names`` in the file; without those that did not agree where ``again``."""
    if path is None or not path.exists():
        return []
    found = {row.name: row for row in (Row(**json.loads(line)) for line in path.read_text().splitlines())}
    return [found[name] for name in names if name in found and not (again and found[name].verdict != "agrees")]


def totals(rows: Sequence[Row]) -> str:
    """Return how many agree, by group and in all."""
    lines = []
    for group in [*dict.fromkeys(row.group for row in rows), None]:
        of = [row for row in rows if group in (None, row.group)]
        counts = {
            verdict: sum(row.verdict == verdict for row in of) for verdict in dict.fromkeys(r.verdict for r in of)
        }
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        exported = sum(row.verdict == "agrees" and row.captured == "exported" for row in of)
        lines.append(f"{group or 'all'}: {len(of)} kinds: {told}; {exported} of those that agree by torch.export")
    return "\n".join(lines)


def _run(names: Sequence[str], options: argparse.Namespace) -> Iterator[Row]:
    """Yield each kind's row as it comes: a forked process each, which shares what was imported before."""
    from fixtures.catalogue import catalogue

    if not names:
        return
    _preload(sorted({catalogue()[name].needs for name in names}))
    context = multiprocessing.get_context("fork")
    waiting, running = list(names), dict[Connection, tuple[str, Any, float]]()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            name = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(theirs, name, options.only, options.precision))
            process.start()
            theirs.close()
            running[ours] = (name, process, time.monotonic() + options.timeout)
        ready = wait(list(running), timeout=1.0)
        late = [pipe for pipe, (_, _, end) in running.items() if pipe not in ready and time.monotonic() > end]
        for pipe in [*ready, *late]:
            assert isinstance(pipe, Connection)
            name, process, _ = running.pop(pipe)
            yield _received(pipe, name, process, options.timeout if pipe in late else None)


def _received(pipe: Connection, name: str, process: Any, limit: float | None) -> Row:
    from fixtures.catalogue import catalogue

    group = catalogue()[name].group
    if limit is not None:
        process.kill()
        process.join()
        return Row(name, group, "no answer", f"not within {limit:.0f} s")
    try:
        row: Row = pipe.recv()
    except EOFError:
        process.join()
        return Row(name, group, "died", f"exit code {process.exitcode}")
    process.join()
    return row


def _preload(packages: Sequence[str]) -> None:
    """Import once what every process needs, and the packages that the kinds come from."""
    import torch

    from fixtures.timm_models import declare
    from tlkit.host.quiet import quiet

    with quiet():
        for name in ("coremltools", "tlkit.core.convert.attempts", *filter(None, packages)):
            if name in ("timm", "torchvision"):
                declare()
            import_module(name)
    torch.set_num_threads(1)


def _child(pipe: Connection, name: str, only: str | None, precision: str) -> None:
    from tlkit.host.quiet import quiet

    with quiet():
        row = measured(name, only, precision)
    pipe.send(row)
    pipe.close()


def measured(name: str, only: str | None = None, precision: str = "f16") -> Row:
    """Build the kind called ``name``, convert it and return its row; ``only``: captured in this way."""
    from fixtures.catalogue import catalogue

    kind = catalogue()[name]
    try:
        module = kind.build()
    except Exception as error:  # another version of transformers may want another config
        return Row(name, kind.group, "not built", f"{type(error).__name__}: {error}".replace("\n", " "))
    row = Row(name, kind.group, "", parameters=sum(parameter.numel() for parameter in module.parameters()))
    return _converted(row, module, kind.inputs, only, precision)


def _converted(row: Row, module: Any, inputs: dict[str, str], only: str | None, precision: str) -> Row:
    import tlkit
    from tlkit.core.convert.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        goal = Path(folder) / "made.mlpackage"
        try:
            made = convert(module, goal, inputs=inputs, export=only == "export", auto=only is None, precision=precision)
        except tlkit.TlkitError as error:
            return replace(row, verdict="refused", reason=f"{error.message} ({error.hint})".replace("\n", " "))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}".partition("\n")[0]
            return replace(row, verdict="a fault", reason=f"{text} at {Path(place.filename).name}:{place.lineno}")
    instead = any("captured by torch.export instead" in note for note in made.notes)
    row = replace(row, captured="exported" if only == "export" or instead else "traced", size=made.size)
    spent = made.timings["verify"]
    row = replace(row, seconds=made.timings["total"] - spent, verify=spent)
    found = made.verification
    if found is None or not found.outputs:
        return replace(row, verdict="not verified", reason="; ".join(found.reasons) if found else "")
    row = replace(
        row,
        max_abs=max(each.max_abs for each in found.outputs.values()),
        cosine=min(each.cosine for each in found.outputs.values()),
        snr_db=min(each.snr_db for each in found.outputs.values()),
    )
    if found.passed:
        return replace(row, verdict="agrees")
    verdict = "DIFFERS" if found.passed is False else "not verified"
    return replace(row, verdict=verdict, reason="; ".join(filter(None, (*found.reasons, found.cause, *made.notes[:1]))))


if __name__ == "__main__":
    sys.exit(main())
