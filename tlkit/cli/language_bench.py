"""``tlkit bench`` on language models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.cli.language import ENGINES, KNOWN_ENGINES
from tlkit.cli.sink import output
from tlkit.errors import UsageError
from tlkit.types import Unit
from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.bench.language.measure import LanguageBench

_KNOWN = {"models", "prompt_tokens", "gen", "engine", "units", "processes", "iterations", "seed", "timeout"}
_COMMON = {"json", "quiet", "verbose", "format"}


def measures_language(models: Sequence[str], given: set[str]) -> bool:
    """Whether a call is about language models: by its options, or by GGUF files."""
    if {"show", "estimate"} & given:
        return False
    return bool({"prompt_tokens", "gen"} & given) or (bool(models) and all(name.endswith(".gguf") for name in models))


def refuse_for_language(given: set[str]) -> None:
    """UsageError for an option that would have no effect."""
    for name in sorted(given - _KNOWN - _COMMON):
        flag = {"inputs": "--input", "shapes": "--shape"}.get(name, "--" + name.replace("_", "-"))
        raise UsageError(f"{flag} does not apply to a language model", "leave it out")


def language_unit(text: str | None) -> Unit:
    """Return the one unit of ``--units``, by default the CPU; UsageError for several."""
    if text is None:
        return Unit.CPU
    if "," in text:
        said = f"--units {text}: a language model is measured on one at a time"
        raise UsageError(said, "name one, for example --units gpu")
    return Unit.parse(text)


def bench_language(
    sink: output.Sink,
    models: Sequence[str],
    sizes: Sequence[int],
    generated: int | None,
    engine: str,
    unit: Unit,
    processes: int | None,
    iterations: int,
    seed: int,
    timeout: float,
    given: set[str],
) -> None:
    """Measure, and print the table."""
    from tlkit.core.bench.language.measure import GENERATED, PROCESSES, PROMPTS, TIMES, LanguageMethod, measure_language

    if not models:
        raise UsageError("--prompt-tokens and --gen are for language models", "name one: tlkit bench model.gguf")
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: not for language models", f"they are run by {KNOWN_ENGINES}")
    count = processes or PROCESSES
    # -n counts the prompts of each size, over all processes.
    times = -(-iterations // count) if "iterations" in given else TIMES
    wanted = GENERATED if generated is None else generated
    method = LanguageMethod(tuple(sizes) or PROMPTS, wanted, engine, unit, count, max(times, 1), seed, timeout)
    method.check()
    with sink.progress("measuring") as bar:
        found = measure_language(models, method, bar.describe)
    sink.answer(document(found, method), lambda: _shown(found))


def document(found: LanguageBench, method: Any) -> dict[str, Any]:
    """Return the measurement for ``--json``."""
    rows = [
        {
            "model": item.model,
            "engine": item.row.backend,
            "test": item.test,
            "tokens": item.tokens,
            "after": item.after,
            "tokens_per_second": item.rate,
            "summary": item.row.summary,
            "trust": item.row.trust,
            "energy": item.row.energy,
            "samples_ns": item.row.samples_ns,
        }
        for item in found.rows
    ]
    return {
        "method": method,
        "rows": rows,
        "starts": found.starts,
        "power_note": found.power_note,
        "conditions": found.conditions,
        "machine": found.machine,
    }


def _shown(found: LanguageBench) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tlkit.cli.sink import figures
    from tlkit.cli.views.bench.sections import trust_lines
    from tlkit.core.bench.rows import energy_notes

    several, metered = len(found.starts) > 1, any(item.row.energy for item in found.rows)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in (*(("model",) if several else ()), "test"):
        table.add_column(title)
    for title in ("tokens/s", "median", *(("mJ a token", "tokens/J") if metered else ()), "trust"):
        table.add_column(title, justify="right")
    for item in found.rows:
        assert item.row.summary is not None  # every row was measured
        test = f"prompt {item.tokens}" if item.test == "prompt" else f"generate {item.tokens} after {item.after}"
        unit = "" if item.test == "prompt" else " a token"
        level = item.row.trust.level if item.row.trust else ""
        median = figures.time(item.row.summary.median_ns) + unit
        named = (Path(item.model).name,) if several else ()
        spent = item.row.energy
        cells = ("-", "-") if spent is None else (figures.number(spent.millijoules), figures.rate(spent.per_joule))
        table.add_row(*named, test, f"{item.rate:.1f}", median, *(cells if metered else ()), level)
    told = "; ".join(energy_notes(found.power_note, [item.row for item in found.rows]))
    # Energy is above the idle machine; what is missing says why.
    powered = [Text(f"power{'' if metered else ' n/a'}: {told}", "dim")] if told else []
    lines = []
    for start in found.starts:
        first = f"ready after {figures.time(start.load_ns)}, first token after {figures.time(start.first_token_ns)}"
        memory = f"at most {byte_text(start.peak_bytes)} of memory ({byte_text(start.file_bytes)} on disk)"
        lines.append(Text(f"{start.model}: {start.engine}; {first}; {memory}"))
    return Group(table, Text(), *lines, *powered, Text(), *trust_lines([item.row for item in found.rows]))
