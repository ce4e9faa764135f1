"""Plans become the jobs that one would write by hand, and a mistake is one sentence that names its place.

Covers tlkit/fleet/job.py, tlkit/fleet/schema.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.errors import LoadError, UsageError
from tlkit.fleet.plan import check_outputs, read_plan
from tlkit.fleet.schema import PLAN, check

ZOO = """
[limits]
jobs = 3
timeout = "2 min"
[[model]]
path = "zoo/*.mlpackage"
[[model]]
source = "net.py:Net"
name = "mine"
[[job]]
verb = "inspect"
models = ["a*", "b"]
[[job]]
verb = "bench"
models = ["b"]
options = { iterations = 5, per-op = true, quiet = false }
matrix = { units = ["cpu", "ane"], precision = ["f16", "f32"] }
memory = "1.5 GB"
[[job]]
verb = "convert"
models = ["mine"]
matrix = { target = ["iOS16", "iOS18"] }
output = "out/{name}-{target}.mlpackage"
timeout = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("zoo/a1.mlpackage", "zoo/a2.mlpackage", "zoo/b.mlpackage", "out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "net.py").write_text("")
    return tmp_path


def plan(folder: Path, text: str, name: str = "zoo.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_each_model_with_each_setting(folder: Path) -> None:
    found = read_plan(plan(folder, ZOO))
    assert found.at_a_time == 3
    end = ("--json", "--quiet")
    words = [(job.verb, *job.words) for job in found.jobs]
    models = {name: str(folder / "zoo" / f"{name}.mlpackage") for name in ("a1", "a2", "b")}
    assert words[:3] == [("inspect", models[name], *end) for name in ("a1", "a2", "b")]
    assert words[3:7] == [
        ("bench", models["b"], "--iterations", "5", "--per-op", "--units", units, "--precision", precision, *end)
        for units in ("cpu", "ane")
        for precision in ("f16", "f32")
    ]
    assert words[7:] == [
        ("convert", f"{folder}/net.py:Net", "--target", target, "-o", f"{folder}/out/mine-{target}.mlpackage", *end)
        for target in ("iOS16", "iOS18")
    ]
    needs = [(job.needs.unit, job.needs.memory, job.needs.alone, job.timeout) for job in found.jobs]
    assert needs[0] == ("", 0, False, 120.0) and needs[3] == ("", 1_500_000_000, True, 120.0)
    assert needs[5] == ("ane", 1_500_000_000, True, 120.0) and needs[7] == ("", 0, False, 7.0)
    assert found.jobs[3].settings == {"model": "b", "units": "cpu", "precision": "f16"}


def test_the_same_in_yaml_and_json(folder: Path) -> None:
    import tomllib

    import yaml

    document = tomllib.loads(ZOO)
    found = [
        read_plan(plan(folder, text, name)).jobs
        for name, text in (
            ("a.toml", ZOO),
            ("a.json", json.dumps(document)),
            ("a.yaml", yaml.safe_dump(document, sort_keys=False)),
        )
    ]
    assert found[0] == found[1] == found[2]


def test_a_job_is_known_by_what_it_reads(folder: Path) -> None:
    keys = [[job.key for job in read_plan(plan(folder, ZOO)).jobs] for _ in range(2)]
    assert keys[0] == keys[1] and len(set(keys[0])) == 9
    (folder / "zoo" / "b.mlpackage" / "weights").write_bytes(b"new")
    third = [job.key for job in read_plan(plan(folder, ZOO)).jobs]
    assert [one == two for one, two in zip(keys[0], third, strict=True)] == [True, True, *[False] * 5, True, True]


def test_a_folder_of_models_and_names_that_tell_apart(folder: Path) -> None:
    (folder / "zoo" / "b.mlmodel").write_bytes(b"")
    (folder / "zoo" / "notes.txt").write_bytes(b"")
    text = '[[model]]\npath = "zoo"\n[[job]]\nverb = "inspect"\n'
    names = [job.settings["model"] for job in read_plan(plan(folder, text)).jobs]
    assert names == ["a1", "a2", "b.mlmodel", "b.mlpackage"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[[job]]", "[[jobs]]"), "jobs: there is no such key; 'job' is one"),
        ((ZOO[ZOO.index("[[job]]") :], ""), "'job' is missing"),
        (('verb = "bench"', 'verb = "bnech"'), r"job\[1\].verb: 'bnech' is not one of inspect, convert"),
        (("matrix", "matrx"), r"job\[1\].matrx: there is no such key; 'matrix' is one"),
        (('units = ["cpu", "ane"]', 'units = "cpu"'), r"job\[1\].matrix.units: 'cpu' is not a list"),
        (("jobs = 3", "jobs = 0"), "limits.jobs: 0 is less than 1"),
        (("jobs = 3", "jobs = true"), "limits.jobs: True is not a whole number"),
        (('path = "zoo/*.mlpackage"', 'path = "zoo/*.gguf"'), "matches no model"),
        (('models = ["b"]', 'models = ["c"]'), "no model's name matches c"),
        (('"2 min"', '"2 weeks"'), "'2 weeks' is not a time"),
        (('"1.5 GB"', '"1.5 stones"'), "not a size"),
        (('"1.5 GB"', '"1.5.2 GB"'), "not a size"),
        (('"2 min"', '"1.2.3 min"'), "is not a time"),
        (('"2 min"', '"2"'), "is not a time"),
        (("{name}-{target}", "{nmae}"), "there is no {nmae}"),
        (("{name}-{target}", "{name}"), "two jobs write"),
        (('source = "net.py:Net"', ""), "either 'path' or 'source'"),
        (("[limits]", "[limits"), "line 2"),
    ],
)
def test_mistakes(folder: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_plan(plan(folder, ZOO.replace(*change)))


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("absent.toml", "binary.toml"):
        with pytest.raises(LoadError, match=name):
            read_plan(tmp_path / name)


def test_outputs_that_exist(folder: Path) -> None:
    jobs = read_plan(plan(folder, ZOO)).jobs
    check_outputs(jobs, (), force=False)
    (folder / "out" / "mine-iOS16.mlpackage").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        check_outputs(jobs, (), force=False)
    check_outputs(jobs, (), force=True)
    check_outputs(jobs, {jobs[7].key}, force=False)
    os.rename(folder / "out", folder / "elsewhere")
    with pytest.raises(UsageError, match="there is no folder"):
        check_outputs(jobs, (), force=True)


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(0, 1), st.sampled_from(["", "x", "bench"]))
_KEYS = st.sampled_from(["model", "job", "limits", "path", "verb", "matrix", "options", "jobs", "timeout", "x"])
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=20
)
_PLANS = st.fixed_dictionaries(
    {
        "model": st.lists(st.dictionaries(_KEYS, st.sampled_from(["x", ""]), max_size=2), max_size=2),
        "job": st.lists(st.fixed_dictionaries({"verb": st.just("run")}, optional={"matrix": _VALUES}), max_size=2),
    },
    optional={"limits": _VALUES},
)


@settings(max_examples=200, deadline=None)
@given(_PLANS | _VALUES)
def test_the_check_agrees_with_json_schema(value: object) -> None:
    assert (check(value) == "") == jsonschema.Draft202012Validator(PLAN).is_valid(value)
