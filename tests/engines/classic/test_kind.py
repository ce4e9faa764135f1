"""Which kinds of models run, and which become mlprograms: what the document says is what the tables have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.engines.classic.specs import blank
from tests.frontends.network.nets import layer
from tlkit.core.convert.classic.making import SAID
from tlkit.engines.classic.kind import NOT_RUN, RUN_BY, refuse_unrun
from tlkit.errors import LoadError
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.frontends.espresso import model as espresso
from tlkit.frontends.espresso.kit import making
from tlkit.frontends.network.control import KINDS
from tlkit.frontends.network.kit.registry import kinds

PIPELINES = ("pipeline", "pipelineClassifier", "pipelineRegressor")
EVERY = {field.name for field in blank("scaler", {}, {}).DESCRIPTOR.oneofs_by_name["Type"].fields}


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs/formats.md").read_text().partition("## Core ML's kinds of models")[2]


def test_the_document_has_each_kind_once_and_says_what_the_tables_say(page: str) -> None:
    runs, becomes = set[str](), set[str]()
    listed: list[str] = []
    for row in re.findall(r"^\| `.*$", page.partition("Compiled (")[0], re.M):
        _, names, run, made, _ = row.split("|")
        found = re.findall(r"`(\w+)`", names)
        listed += found
        runs |= set(found) if run.strip().startswith("yes") else set()
        becomes |= set(found) if made.strip().startswith("yes") else set()
    assert sorted(listed) == sorted(EVERY)
    assert runs == {*RUN_BY, *NETWORKS, *PIPELINES, "mlProgram", "linkedModel"} and EVERY - runs == set(NOT_RUN)
    assert becomes == {*SAID, *PIPELINES}
    counts = re.search(r"All (\d+) kinds .*: (\d+) run .*, (\d+) become", page)
    assert counts is not None
    assert [int(count) for count in counts.groups()] == [len(EVERY), len(runs), len(becomes)]


def test_the_document_counts_layers(page: str) -> None:
    there = layer("add").DESCRIPTOR.oneofs_by_name["layer"].fields
    assert {*kinds(), *KINDS} == {field.name for field in there} and f"all {len(there)} kinds of layers" in page
    compiled, named, other = page.partition("Compiled neural networks")[2], set[str](), list[str]()
    made, _, unread = compiled.partition("Of these ")
    table, _, rest = unread.partition("The compiled names of the other ")
    for row in re.findall(r"^\| `.*$", made, re.M):
        names, runs = (re.findall(r"`(\w+)`", cell) for cell in row.split("|")[1:3])
        named |= set(names)
        other += runs
    assert espresso.KINDS and named == set(making._MAKERS) and f"these {len(named)} are known" in compiled
    assert f"{len(other)} are what one of them runs as" in made
    without = [
        name for row in re.findall(r"^\| `.*$", table, re.M) for name in re.findall(r"`(\w+)`", row.split("|")[2])
    ]
    assert int(table.split()[0]) == len(without)
    assert set(re.findall(r"^\| `(\w+)` ", table, re.M)) == set(making.UNREAD)
    unknown = re.findall(r"`(\w+)`", rest)
    assert int(rest.split()[0]) == len(unknown)
    assert sorted([*other, *without, *unknown]) == sorted(field.name for field in there)


def test_what_comes_after_a_part_of_apples_is_asked_for_by_name() -> None:
    eyes = blank("visionFeaturePrint", {"image": 1}, {"f": 4})
    scaled = blank("scaler", {"f": 4}, {"s": 4})
    both = blank("featureVectorizer", {"s": 4, "age": "double"}, {"x": 5})
    with pytest.raises(LoadError, match="visionFeaturePrint cannot be run here") as refused:
        refuse_unrun([eyes, scaled, both])
    assert refused.value.hint.endswith("--from 1 --input f=FILE --input age=FILE")
    with pytest.raises(LoadError) as last:
        refuse_unrun([scaled, eyes])
    assert "tlkit inspect" in last.value.hint
    refuse_unrun([scaled, both])
