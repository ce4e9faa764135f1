"""``--input`` and ``--shape`` as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tlkit.core.model.inputs import Drawn
from tlkit.core.model.values import collect, parse_inputs, read_value
from tlkit.errors import LoadError, TlkitError, UsageError
from tlkit.types import TensorSpec

X = TensorSpec("x", "float32", (1, 3))
Y = TensorSpec("y", "int32", (2,))
SPARE = TensorSpec("spare", "float32", (4,), optional=True)


def gathered(ports: list[TensorSpec], *texts: str, shapes: tuple[str, ...] = (), seed: int = 0) -> dict[str, Any]:
    return collect(ports, texts, shapes, seed, lambda _: None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2.5e1", -25.0),
        (".5", 0.5),
        ("inf", float("inf")),
        ("[1, 2,3]", [1, 2, 3]),
        ("[[1.5], [nan]]", [[1.5], [float("nan")]]),
        ("random", Drawn("random")),
        ("zeros", Drawn("zeros")),
    ],
)
def test_literals(text: str, value: object) -> None:
    np.testing.assert_equal(read_value(text, "x"), value)


@pytest.mark.parametrize("text", ["[1,", "[1] [2]", "[" * 100_000, "[x]"])
def test_broken_literals_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        read_value(text, "x")


def test_values_by_name_and_by_position_where_there_is_one_input() -> None:
    assert gathered([X, Y], "x=[[1,2,3]]", "y=[1,2]") == {"x": [[1, 2, 3]], "y": [1, 2]}
    assert gathered([X], "[[1,2,3]]") == {"x": [[1, 2, 3]]}
    with pytest.raises(UsageError, match="which input") as caught:
        gathered([X, Y], "[1,2]")
    assert "x, y" in caught.value.hint


def test_what_is_not_given_is_drawn_from_the_seed_and_said() -> None:
    said: list[str] = []
    values = collect([X, Y, SPARE], ["y=[1,2]"], (), 4, said.append)
    assert list(values) == ["y", "x"] and values["x"].shape == (1, 3)
    assert said == ["random values (seed 4) for what was not given: x"]
    np.testing.assert_array_equal(values["x"], gathered([X, Y], "y=[1,2]", seed=4)["x"])


def test_shapes_choose_among_what_a_port_allows() -> None:
    flexible = TensorSpec("x", "float32", (1, 3), ranges=((1, 4), (3, 3)))
    for text in ("x=2,3", "x=2x3"):
        assert gathered([flexible], "x=zeros", shapes=(text,))["x"].shape == (2, 3)
    for text in ("x=5,3", "x=2,x", "2,3", "z=1", "x=-1,3"):
        with pytest.raises(UsageError):
            gathered([flexible], shapes=(text,))


def test_arrays_from_files(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)[None]
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", x=array, z=array + 1)
    save_file({"x": array, "z": array + 1}, tmp_path / "a.safetensors")
    from tlkit.core.model.inputs import to_port

    np.testing.assert_array_equal(to_port(X, gathered([X], f"x={tmp_path}/a.npy")["x"]), array)
    for name in ("a.npz", "a.safetensors"):
        path = tmp_path / name
        np.testing.assert_array_equal(to_port(X, gathered([X], f"x={path}")["x"]), array)
        np.testing.assert_array_equal(gathered([X], f"x={path}:z")["x"], array + 1)
        assert list(gathered([X, Y], str(path), "y=zeros")) == ["x", "y"]
        with pytest.raises(UsageError, match="no array 'q'"):
            gathered([X], f"x={path}:q")
        with pytest.raises(UsageError, match="none of its arrays"):
            gathered([Y, SPARE], str(path))


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path("/nowhere/tlkit-was-here").write_text, ("x",))


def _pickled(path: Path) -> None:
    np.save(path, np.array([Boom()], dtype=object), allow_pickle=True)


def _huge(path: Path) -> None:
    """A header that promises 2**50 elements, and no data."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(
            file,
            {"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)},  # type: ignore[arg-type]
        )


def _cut(path: Path) -> None:
    np.savez(path, x=np.zeros(1000))
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(("make", "name"), [(_pickled, "a.npy"), (_huge, "a.npy"), (_cut, "a.npz")])
def test_array_files_that_lie_are_load_errors(tmp_path: Path, make: Any, name: str) -> None:
    from tlkit.core.model.inputs import to_port

    make(tmp_path / name)
    with pytest.raises(TlkitError) as caught:
        to_port(X, gathered([X], f"x={tmp_path / name}")["x"])
    assert name in caught.value.message


@pytest.mark.parametrize("texts", [["x=1", "x=2"], ["x"], ["=1", "=2"]])
def test_texts_without_ports_are_name_and_value(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_inputs(texts)


def test_texts_without_ports() -> None:
    assert parse_inputs(["x=[1]", "y=zeros"]) == {"x": [1], "y": Drawn("zeros")}


def test_unknown_names_and_missing_files() -> None:
    with pytest.raises(UsageError, match="no input is named 'q'"):
        gathered([X], "q=1")
    with pytest.raises(UsageError, match="twice"):
        gathered([X], "x=1", "x=2")
    with pytest.raises(LoadError, match="no such file"):
        gathered([X], "x=nothing.npy")
