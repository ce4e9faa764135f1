"""``--emulate``: every output says that it is an emulation."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import Shell
from tests.formats import packages


def test_run_prints_that_it_is_an_emulation(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    done = tlkit("run", path, "--emulate", "ane", "--json")
    assert done.code == 0 and "not a measurement" in done.err
    assert done.json()["emulated"]["profile"] == "ane-m4"
    assert "emulated: the Neural Engine of an M4" in tlkit("run", path, "--emulate", "ane").out
    assert tlkit("run", path, "--json").json()["emulated"] is None
    wrong = tlkit("run", path, "--emulate", "tpu")
    assert wrong.code == 2 and "ane-m1" in wrong.err


SOFTPLUS = """program(1.0) { func main<ios16>(tensor<fp16, [1, 4]> x) {
  fp16 low = const()[val = fp16(0x1.6p+3)];
  tensor<fp16, [1, 4]> much = add(x = x, y = low);
  tensor<fp16, [1, 4]> y = softplus(x = much); } -> (y); }"""


def test_compare_shows_how_far_units_disagree_and_where(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    done = tlkit("compare", path, "--emulate", "mil,ane,cpu,gpu", "--json")
    assert done.code == 0
    found = done.json()["units"]
    assert [item["told"][1].rpartition(" ")[2] for item in found] == ["ane", "cpu", "gpu"]
    assert all(any("not a measurement" in note for note in item["notes"]) for item in found)
    assert tlkit("compare", path, "--emulate", "mil").code == 2


def test_the_operation_at_which_a_unit_parts_is_found_with_its_rule(tlkit: Shell, tmp_path: Path) -> None:
    model = tmp_path / "model.mil"
    model.write_text(SOFTPLUS)
    done = tlkit("compare", model, "--emulate", "mil,ane", "--bisect", "--json")
    assert done.code == 1
    first = done.json()["bisection"]["first"]
    assert first["type"] == "softplus" and "R1, emulated" in first["why"]


WEIGHTS = ", ".join(["0x1.4p+13"] * 16)
LARGE = """program(1.0) { func main<ios16>(tensor<fp16, [1, 4]> x) {
  tensor<fp16, [4, 4]> w = const()[val = tensor<fp16, [4, 4]>([WEIGHTS])];
  tensor<fp16, [4]> b = const()[val = tensor<fp16, [4]>([0, 0, 0, 0])];
  tensor<fp16, [1, 4]> y = linear(x = x, weight = w, bias = b); } -> (y); }"""


def test_a_sum_that_only_the_neural_engine_cannot_hold_is_found(tlkit: Shell, tmp_path: Path) -> None:
    """4 * 10240 is a number in f16, and passes the accumulator's 32768."""
    model = tmp_path / "model.mil"
    model.write_text(LARGE.replace("WEIGHTS", WEIGHTS))
    given = ("compare", model, "--find-nan", "--input", "x=[[1,1,1,1]]", "--json")
    assert tlkit(*given).json() | {"tried": []} == tlkit(*given).json() | {"tried": [], "operation": "", "emulated": ""}
    done = tlkit(*given, "--emulate", "ane")
    found = done.json()
    assert done.code == 1 and (found["type"], found["infinite"]) == ("linear", 4)
    assert "not a measurement" in found["emulated"] and "not a measurement" in done.err
    assert tlkit(*given, "--emulate", "tpu").code == 2
