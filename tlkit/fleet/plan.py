"""Plans: files that name models, what is done with them, and the settings to try, and the jobs that come of that."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import json
import re
import tomllib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, UnavailableError, UsageError, reason
from tlkit.fleet.job import FleetJob, Needs, job_key
from tlkit.fleet.schema import check
from tlkit.words import BYTES, quantity

_UNITS = {"s": 1, "sec": 1, "min": 60, "h": 3600}
_SIZES = BYTES | {"": 1.0}
_MODELS = (".mlpackage", ".mlmodel", ".mlmodelc", ".safetensors", ".gguf", ".onnx", ".pt", ".pt2", ".pth")
_UNIT_NEEDS = {"ane": "ane", "gpu": "gpu"}


@dataclass(frozen=True)
class PlannedModel:
    """A model of a plan: its name in reports, and the word that a command takes."""

    name: str
    word: str


@dataclass(frozen=True)
class FleetPlan:
    """A plan that was read: its jobs in order, and how many run at a time on this machine (0: as it sees fit)."""

    jobs: list[FleetJob]
    at_a_time: int = 0


def read_plan(path: Path) -> FleetPlan:
    """Read a plan (TOML, YAML or JSON, by the ending of its name) and return its jobs.

    Paths in it are relative to its folder. Raises LoadError where it cannot be read, UsageError where something in it
    is wrong or names no model.
    """
    document = _document(path)
    if wrong := check(document):
        raise UsageError(f"{path}: {wrong}", "tlkit fleet --schema prints what a plan may hold")
    folder = path.parent.resolve()
    models = _named(path, list(_models(path, document["model"], folder)))
    limits = document.get("limits", {})
    jobs = [job for item in document["job"] for job in _jobs(path, item, models, folder, limits)]
    seen: dict[str, FleetJob] = {}
    for job in jobs:
        if job.output and job.output in seen:
            raise UsageError(f"{path}: two jobs write {job.output}", "name them apart: {name} and the matrix' keys")
        seen[job.output] = job
    return FleetPlan(list({job.key: job for job in jobs}.values()), limits.get("jobs", 0))


def _document(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: {reason(error)}", "name a plan: a .toml, .yaml or .json file") from error
    try:
        if path.suffix in (".yaml", ".yml"):
            return _yaml(path, text)
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {reason(error, whole=True)}", "mend the plan") from error


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise UnavailableError(
            f"{path}: PyYAML is not installed", "pip install 'tlkit[yaml]', or write the plan in TOML"
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {reason(error, whole=True)}", "mend the plan") from error


def _models(path: Path, items: Sequence[Mapping[str, str]], folder: Path) -> Iterator[PlannedModel]:
    for at, item in enumerate(items):
        if ("path" in item) == ("source" in item):
            raise UsageError(f"{path}: model[{at}]: it needs either 'path' or 'source'", "give one of them")
        if "source" in item:
            word = item["source"]
            here = folder / word.partition(":")[0]
            found = [(item.get("name", re.sub(r"[^\w.-]+", "_", word)), str(folder / word) if here.exists() else word)]
        else:
            files = list(_files(folder, item["path"]))
            if not files:
                raise UsageError(f"{path}: model[{at}]: {item['path']} matches no model", f"looked in {folder}")
            alone = item.get("name") if len(files) == 1 else None
            found = [(alone or file.stem, str(file)) for file in files]
        yield from (PlannedModel(name, word) for name, word in found)


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the models that a path or pattern names; of a plain folder those in it."""
    for name in sorted(glob.glob(str(folder / pattern), recursive=True)):
        place = Path(name)
        if place.is_dir() and place.suffix not in _MODELS and not (place / "config.json").exists():
            yield from (item for item in sorted(place.iterdir()) if item.suffix in _MODELS)
        else:
            yield place


def _named(path: Path, models: list[PlannedModel]) -> list[PlannedModel]:
    """Return the models with names that tell them apart: the ending, then the folder, is added where it must be."""
    for longer in (lambda word: Path(word).name, lambda word: word):
        names = [model.name for model in models]
        twice = {name for name in names if names.count(name) > 1}
        models = [PlannedModel(longer(m.word), m.word) if m.name in twice else m for m in models]
    return list({model.word: model for model in models}.values())


def _jobs(
    path: Path, item: Mapping[str, Any], models: Sequence[PlannedModel], folder: Path, limits: Mapping[str, Any]
) -> Iterator[FleetJob]:
    wanted = item.get("models", ["*"])
    chosen = [model for model in models if any(fnmatch.fnmatchcase(model.name, want) for want in wanted)]
    if not chosen:
        raise UsageError(f"{path}: no model's name matches {', '.join(wanted)}", f"there are {_few(models)}")
    matrix = item.get("matrix", {})
    memory = _size(path, item.get("memory", limits.get("memory", 0)))
    timeout = _seconds(path, item.get("timeout", limits.get("timeout", 0)))
    for model in chosen:
        for values in itertools.product(*matrix.values()):
            settings = dict(zip(matrix, values, strict=True))
            places = {"model": model.word, "name": model.name, **{key: str(value) for key, value in settings.items()}}
            words = [_filled(path, word, places) for word in item.get("arguments", ["{model}"])]
            words += list(_options({**item.get("options", {}), **settings}))
            output = str(folder / _filled(path, item["output"], places)) if "output" in item else ""
            if output:
                words += ["-o", output]
            units = str({**item.get("options", {}), **settings}.get("units", ""))
            yield FleetJob(
                key=job_key(item["verb"], words, [Path(model.word.partition(":")[0])], str(folder)),
                verb=item["verb"],
                words=(*words, "--json", "--quiet"),
                folder=str(folder),
                settings={"model": model.name, **{key: str(value) for key, value in settings.items()}},
                needs=Needs(_UNIT_NEEDS.get(units, ""), memory, alone=item["verb"] == "bench"),
                timeout=timeout,
                output=output,
            )


def check_outputs(jobs: Sequence[FleetJob], started: Container[str], force: bool) -> None:
    """Raise UsageError where a job could not write its output; those of ``started`` jobs are the fleet's own."""
    for job in jobs:
        if not job.output:
            continue
        goal = Path(job.output)
        if not goal.parent.is_dir():
            raise UsageError(f"{goal}: there is no folder {goal.parent}", f"create it first: mkdir -p {goal.parent}")
        if goal.exists() and not force and job.key not in started:
            raise UsageError(f"{goal} exists already", "choose another name, or replace it with --force")


def _options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                yield flag
            elif one is not False:
                yield from (flag, str(one))


def _filled(path: Path, text: str, places: Mapping[str, str]) -> str:
    def place(found: re.Match[str]) -> str:
        if found[1] not in places:
            known = ", ".join(f"{{{name}}}" for name in places)
            raise UsageError(f"{path}: {text}: there is no {found[0]}", f"known: {known}")
        return places[found[1]]

    return re.sub(r"\{(\w+)\}", place, text)


def _seconds(path: Path, value: str | float) -> float:
    return _quantity(path, value, _UNITS, "a time", 'write seconds, or "10 min"')


def _size(path: Path, value: str | int) -> int:
    return int(_quantity(path, value, _SIZES, "a size", 'write bytes, or "4 GB"'))


def _quantity(path: Path, value: str | float, units: Mapping[str, float], what: str, hint: str) -> float:
    """Return a number with its unit as a number; one without a string around it counts as it is."""
    if not isinstance(value, str):
        return value
    found = quantity(value, units)
    if found is None:
        raise UsageError(f"{path}: '{value}' is not {what}", hint)
    return found


def _few(models: Sequence[PlannedModel]) -> str:
    names = [model.name for model in models]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
