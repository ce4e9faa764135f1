"""``tlkit run`` on a data set: a row per sample, in this process, or in parts that run side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from tlkit.cli.many.words import words_of
from tlkit.cli.sink import output
from tlkit.cli.sink.stream import Progress
from tlkit.engines.told import listening, remarks
from tlkit.errors import ExecutionError, UsageError
from tlkit.words import jsonable

if TYPE_CHECKING:
    from tlkit.core.model.load import Model
    from tlkit.core.run.data.sample import SampleSet
    from tlkit.core.run.folder import FolderResult, FolderRow
    from tlkit.core.run.run import OutputSummary
    from tlkit.fleet.job import FleetJob

_ONE = {"shapes": "--shape", "until": "--until", "dump": "--dump", "ops": "--ops", "check_nan": "--check-nan"}
_FORWARDED = (
    *("inputs", "seed", "precision", "engine", "units", "function", "strict_mil", "cache", "emulate", "chip"),
    *("stage", "from_", "custom", "offline"),
)
_LEAST = 64  # samples of a part, where there are enough: each part loads the model
_PARTS = 8  # parts per slot, so that all end at about the same time


def many_inputs(given: Mapping[str, Any]) -> bool:
    """Whether an ``--input`` names a data set; UsageError for options of data sets where none does."""
    from tlkit.core.run.data.samples import many

    if any(map(many, given.get("inputs") or ())):
        return True
    for name in ("jobs", "cluster", "part", "rows"):
        if name in given:
            raise UsageError(f"--{name} goes with many inputs", "name them: --input images/ or --input data.parquet")
    return False


def run_many(sink: output.Sink, model: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Run the model on each sample; ``given`` are the options of ``tlkit run`` that are not at their defaults."""
    for name, flag in _ONE.items():
        if name in given:
            raise UsageError(f"{flag} looks into one inference, and a data set is many", "name one file")
    side_by_side = "jobs" in given or "cluster" in given
    if side_by_side and "part" in given:
        raise UsageError("--part names one part, and --jobs runs all of them", "give one of the two")
    (_in_parts if side_by_side else _here)(sink, model, settings, given)


def _here(sink: output.Sink, model: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Run all samples, or the part that was asked for, in this process."""
    from tlkit.core.model.engines import NOT_FAITHFUL
    from tlkit.core.run.folder import run_samples

    loaded, data, others = _opened(sink.note, model, settings, given)
    if settings["precision"] == "bf16":
        sink.note(NOT_FAITHFUL)
    goal, force, rows = given.get("save_outputs"), bool(given.get("force")), given.get("rows")
    with sink.progress(f"running {model}") as bar, slow_work(bar, f"running {model}"), _rows_file(rows, force) as file:

        def each(row: FolderRow) -> None:
            told = {"file": row.file, "outputs": row.outputs}
            if file is None:
                sink.row(told, f"{row.file}  {_in_short(row.outputs)}")
            else:
                file.write(json.dumps(jsonable(told), allow_nan=False) + "\n")

        result = run_samples(
            *(loaded, data, others),
            part=given.get("part"),
            save_outputs=goal,
            force=force,
            each=each,
            progress=bar.update,
        )
    _tell_end(sink, result, goal, rows)
    if loaded.emulated is not None:
        sink.note(loaded.emulated.text)
    for remark in remarks():
        sink.note(remark)
    sink.debug(f"ran by {result.ran}")


def _opened(
    say: Callable[[str], None], model: str, settings: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[Model, SampleSet, dict[str, Any]]:
    """Return the model, made ready for many inferences, the data set, and the values of the other inputs."""
    from tlkit.core.model.custom import customs
    from tlkit.core.model.load import load_model
    from tlkit.core.model.values import collect

    loaded = load_model(model, custom=customs(given.get("custom") or ()), streams=0, **settings)
    data, texts = _samples(loaded.inputs, given["inputs"])
    rest = tuple(spec for spec in loaded.inputs if spec.name not in data.inputs)
    return loaded, data, collect(rest, texts, (), given.get("seed", 0), say, loaded.stored) if rest else {}


def _samples(ports: Sequence[Any], texts: Sequence[str]) -> tuple[SampleSet, list[str]]:
    from tlkit.core.run.data.samples import samples_of

    found = samples_of(ports, texts)
    if found is None:
        raise UsageError("no input of the model is given the folder", "write --input NAME=FOLDER")
    return found


@contextmanager
def _rows_file(goal: str | None, force: bool) -> Iterator[IO[str] | None]:
    """Open the file of ``--rows``, which is there whole or not at all."""
    from tlkit.host.staging import staged

    if goal is None:
        yield None
        return
    with staged(Path(goal), lambda path: path.stat(), force=force) as path, path.open("w", encoding="utf-8") as file:
        yield file


def _tell_end(sink: output.Sink, result: FolderResult, goal: str | None, rows: str | None) -> None:
    rate = result.count / result.seconds if result.seconds else 0.0
    said = f"{result.count} samples in {result.seconds:.2f} s, {rate:.1f} a second"
    if rows is None:
        sink.note(said)
    else:
        sink.answer(
            {"model": result.model, "data": result.folder, "count": result.count, "seconds": result.seconds}, said
        )
    if goal:
        sink.note(f"outputs written to {goal}")


def _in_parts(sink: output.Sink, model: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Run the set in parts, side by side; then tell their rows and join their outputs, in the samples' order."""
    from tlkit.cli.many.side_by_side import executor_for, run_side_by_side
    from tlkit.core.run.data.outputs import outputs_goal
    from tlkit.core.run.folder import engine_for
    from tlkit.fleet.nodes import this_node
    from tlkit.host.staging import prepare, staged_set

    loaded, data, others = _opened(sink.note, model, settings, given)
    force, save = bool(given.get("force")), given.get("save_outputs")
    goals = [] if save is None else [outputs_goal(save)]
    for item in goals:
        prepare(item.path, force=force, kind=item.kind, inputs=(Path(model), data.place))
    # What the nodes of a cluster write has to be seen here.
    near = Path(save or ".").parent if "cluster" in given or save else None
    with TemporaryDirectory(prefix=".tlkit-", dir=near) as name:
        folder = Path(name).resolve()
        executor = executor_for(given.get("jobs", 0), given.get("cluster"))
        try:
            # Before any worker runs, beside which a trial of engines would not be fair.
            engine = engine_for(loaded, data, others)
            del loaded, others
            if engine and all(node.like(this_node(1), engine) for node in executor.nodes):
                given = {**given, "engine": engine}
            parts = _parts(data.count, sum(node.slots for node in executor.nodes))
            jobs = [_job(model, given, folder, part, parts, bool(save)) for part in range(1, parts + 1)]
            result = run_side_by_side(sink, jobs, executor)
        finally:
            executor.close()
        if wrong := next((job for job in jobs if result.status(job) != "done"), None):
            raise ExecutionError(result.error(wrong), "mend it, or leave --jobs out to see where it is")
        if goals:
            with staged_set(goals, force=force) as paths:
                _join(goals[0], paths[0], [folder / str(part) for part in range(1, parts + 1)], data.count)
        with _rows_file(given.get("rows"), force) as file:
            for line in (line for part in range(1, parts + 1) for line in (folder / f"{part}.jsonl").open()):
                _tell_row(sink, line, file)
    seconds = sum(outcome.seconds for outcome in result.outcomes.values())
    sink.note(f"{data.count} samples in {parts} parts, {seconds:.2f} s of jobs")
    if save:
        sink.note(f"outputs written to {save}")


def _parts(count: int, slots: int) -> int:
    """Return how many parts a set of ``count`` samples is run in."""
    return max(1, min(count, slots * _PARTS, max(slots, count // _LEAST)))


def _job(model: str, given: Mapping[str, Any], folder: Path, part: int, parts: int, save: bool) -> FleetJob:
    from tlkit.fleet.job import FleetJob

    words = [model, *words_of(given, _FORWARDED), "--part", f"{part}/{parts}", "--rows", f"{folder / str(part)}.jsonl"]
    words += ["--save-outputs", str(folder / str(part))] if save else []
    settings = {"model": model, "part": f"{part}/{parts}"}
    # A worker that was killed may have left its part's rows or outputs: they are this job's own.
    return FleetJob(str(part), "run", (*words, "--force", "--json", "--quiet"), os.getcwd(), settings)


def _join(goal: Any, path: Path, parts: Sequence[Path], count: int) -> None:
    """Write the outputs of all parts as one."""
    from tlkit.core.run.data.outputs import output_writer, saved_outputs

    writer = output_writer(goal, path, count)
    for part in parts:
        for name, outputs in saved_outputs(part):
            writer.add(name, outputs)
    writer.close()


def _tell_row(sink: output.Sink, line: str, file: IO[str] | None) -> None:
    from tlkit.core.run.run import OutputSummary

    if file is not None:
        file.write(line)
        return
    told = json.loads(line)
    sink.row(told, f"{told['file']}  {_in_short(tuple(OutputSummary(**item) for item in told['outputs']))}")


@contextmanager
def slow_work(bar: Progress, description: str) -> Iterator[None]:
    """Show slow work of engines, such as compiling, in the place of the bar's description."""
    with listening(lambda work: bar.describe(work or description)):
        yield


def _in_short(outputs: tuple[OutputSummary, ...]) -> str:
    """Return the outputs of one inference on one line: a label, or the shape and mean."""
    label = next((str(item.label) for item in outputs if item.label is not None), None)
    if label is not None:
        return label
    means = [f"{item.name} {'x'.join(map(str, item.shape))}, mean {item.mean}" for item in outputs]
    return "; ".join(means)
