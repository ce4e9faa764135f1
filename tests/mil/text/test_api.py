"""MIL text: what coremlc wrote comes back letter by letter, every program survives, hostile text is refused.

Covers tlkit/mil/floats.py, tlkit/mil/immediate.py, tlkit/mil/text/_parser.py, tlkit/mil/text/_values.py,
tlkit/mil/text/lexer.py, tlkit/mil/text/printer.py.
"""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mil.strategies import PROGRAMS, tensor_values
from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.mil import immediate
from tlkit.mil.program import BlobRef, Block, Function, NamedType, Operation, Program, Ref, StateType, TensorType, Value
from tlkit.mil.proto import parse_model, read_program
from tlkit.mil.text.api import format_program, parse_program
from tlkit.mil.types import DType

CLASSIC = """program(1.0)
[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3404.16.1"}, {"quoted", "a \\"b\\" \\\\"}})]
{
    func main<ios16>(tensor<fp32, [1, ?]> x) [FlexibleShapeInformation = tuple<tuple<tensor<string, []>, dict<tensor<string, []>, tensor<int32, [?]>>>, tuple<tensor<string, []>, dict<tensor<string, []>, list<tensor<int32, [2]>, ?>>>>((("DefaultShapes", {{"x", [1, 8]}}), ("RangeDims", {{"x", [[1, 1], [1, 64]]}})))] {
            tensor<fp16, []> eps = const()[name = tensor<string, []>("eps"), val = tensor<fp16, []>(0x1p-24)];
            tensor<fp32, []> tiny = const()[name = tensor<string, []>("tiny"), val = tensor<fp32, []>(0x1.5798eep-27)];
            tensor<fp32, [2, 2]> grid = const()[name = tensor<string, []>("grid"), val = tensor<fp32, [2, 2]>([[0x1p+0, -0x1.8p+1], [inf, nan]])];
            tensor<fp32, [4, 3]> w = const()[name = tensor<string, []>("w"), val = tensor<fp32, [4, 3]>(BLOBFILE(path = tensor<string, []>("@model_path/weights/weight.bin"), offset = tensor<uint64, []>(64)))];
            tensor<fp32, [1, 4]> a, tensor<fp32, [1, ?]> b = split(axis = eps, values = (x, x), y = tensor<bool, []>(true))[name = tensor<string, []>("s")];
        } -> (a, b);
}
"""  # noqa: E501

MODERN = """program(1.3)
[buildInfo = dict<string, string>({{"coremlc-version", "3505.4.1"}})]
{
    func main<ios18>(state<tensor<fp16, [1, 4]>> cache, tensor<fp16, [1, 4]> x) {
            fp16 half = const()[name = string("half"), val = fp16(0x1p-1)];
            write_state(data = x, input = cache)[name = string("w")];
            tensor<fp16, [1, 4]> r = read_state(input = cache)[name = string("r")];
            tensor<fp16, [1, 4]> y = mul(x = r, y = half)[name = string("y")];
        } -> (y);
    func other<ios18>(tensor<int4, [3]> q) {
            tensor<int4, [3]> k = const()[name = string("k"), val = tensor<int4, [3]>([-8, 0, 7])];
        } -> (k);
}
"""


def no_blob(name: str) -> None:
    return None


def real_programs() -> list[Path]:
    found = [*MODELS.glob("mil/*.mil"), *MODELS.glob("**/model.mil"), *MODELS.glob("**/com.apple.CoreML/*.mlmodel")]
    return sorted(found)


@pytest.mark.parametrize("text", [CLASSIC, MODERN], ids=["program(1.0)", "program(1.3)"])
def test_the_compilers_own_layout_comes_back_letter_by_letter(text: str) -> None:
    assert format_program(parse_program(text, no_blob)) == text


@pytest.mark.parametrize("path", sorted(MODELS.glob("mlmodelc/*/model.mil")), ids=lambda p: p.parent.name)
def test_a_real_compiled_models_text_comes_back_letter_by_letter(path: Path) -> None:
    text = path.read_text()
    assert format_program(parse_program(text, no_blob)) == text


@needs_models
@pytest.mark.parametrize("path", real_programs(), ids=lambda p: f"{p.parts[len(MODELS.parts)]}-{p.parents[2].name}")
def test_every_real_program_survives_printing(path: Path) -> None:
    if path.suffix == ".mil":
        program = parse_program(path.read_text(), no_blob)
    else:
        model = parse_model(path.read_bytes())
        if model.WhichOneof("Type") != "mlProgram":
            pytest.skip("no mlprogram")
        program = read_program(model.mlProgram, no_blob)
    text = format_program(program)
    again = parse_program(text, no_blob)
    assert again == program
    assert format_program(again) == text


def test_what_the_classic_text_says() -> None:
    program = parse_program(CLASSIC, no_blob)
    main = program.function()
    by_name = {operation.name: operation for operation in main.block.operations}
    assert (program.version, main.opset, list(main.block.outputs)) == (1, "CoreML6", ["a", "b"])
    assert main.inputs == (NamedType("x", TensorType(DType.FP32, (1, None))),)
    assert by_name["eps"].attributes["val"].numpy() == 2**-24
    assert by_name["tiny"].attributes["val"].data == (9.99999993922529e-09,)  # 1e-8, as fp32 holds it
    assert by_name["grid"].attributes["val"].data == (1.0, -3.0, math.inf, math.nan)
    assert by_name["w"].attributes["val"].data == BlobRef("@model_path/weights/weight.bin", 64)
    assert by_name["s"].inputs["values"] == (Ref("x"), Ref("x"))
    assert by_name["s"].inputs["y"] == (Value(TensorType(DType.BOOL), (True,)),)
    assert program.attributes["buildInfo"].python() == {"coremlc-version": "3404.16.1", "quoted": 'a "b" \\'}
    flexible = main.attributes["FlexibleShapeInformation"].data
    assert isinstance(flexible, tuple)
    assert flexible[1].data[1].python() == {"x": [[1, 1], [1, 64]]}


def test_what_the_modern_text_says() -> None:
    program = parse_program(MODERN, no_blob)
    main = program.function("main")
    assert main.inputs[0].type == StateType(TensorType(DType.FP16, (1, 4)))
    assert main.block.operations[1] == Operation(
        "write_state",
        {"data": (Ref("x"),), "input": (Ref("cache"),)},
        (),
        {"name": Value(TensorType(DType.STRING), ("w",))},
    )
    assert program.function("other").block.operations[0].attributes["val"].numpy().tolist() == [-8, 0, 7]


def test_other_peoples_spellings_mean_the_same() -> None:
    loose = """program(1) { // no build information
      func main<CoreML8>(tensor<fp16,[1,4]> x){
        tensor<fp16, []> e = const()[val=tensor<fp16, []>(fp16(0.125000))];
        tensor<fp16,[2]> f=const()[val=tensor<fp16,[2]>(0.5, fp16(1e0))];
        (tensor<fp16,[1,2]> a, tensor<fp16,[1,2]> b)=split(x=x,axis=int32(1))[name=string("s")]  ;
      }->(a,b)
    }"""
    strict = """program(1.3)
{
    func main<ios18>(tensor<fp16, [1, 4]> x) {
            fp16 e = const()[val = fp16(0x1p-3)];
            tensor<fp16, [2]> f = const()[val = tensor<fp16, [2]>([0x1p-1, 0x1p+0])];
            tensor<fp16, [1, 2]> a, tensor<fp16, [1, 2]> b = split(axis = int32(1), x = x)[name = string("s")];
        } -> (a, b);
}
"""
    loose = loose.replace("tensor<fp16,[2]>(0.5, fp16(1e0))", "tensor<fp16,[2]>([0.5, fp16(1e0)])")
    assert format_program(parse_program(loose, no_blob)) == strict


def test_weight_files_are_opened_once_each() -> None:
    opened: list[str] = []
    name = "@model_path/weights/weight.bin"
    line = f'fp16 w = const()[val = fp16(BLOBFILE(path = string("{name}"), offset = uint64(64)))];\n'
    parse_program(f"program(1.3) {{ func main<ios18>() {{ {line * 3} }} -> (w); }}", opened.append)
    assert opened == [name]


# Numbers, against torch's own idea of the small floats

SMALL = {"FP16": "float16", "BF16": "bfloat16", "FP8E4M3FN": "float8_e4m3fn", "FP8E5M2": "float8_e5m2"}


@pytest.mark.parametrize("name", SMALL)
def test_every_small_float_is_spelt_exactly(name: str) -> None:
    torch = pytest.importorskip("torch")
    dtype = DType[name]
    step = 1 if dtype.bits == 8 else 31  # every fp8; every 31st of the 16-bit ones, which meets each exponent
    patterns = list(range(0, 1 << dtype.bits, step))
    stored = torch.tensor(patterns, dtype=torch.int32).to(getattr(torch, f"uint{dtype.bits}"))
    expected = stored.view(getattr(torch, SMALL[name])).double().tolist()
    write, read = immediate.writer(dtype), immediate.reader(dtype)
    for bits, value in zip(patterns, expected, strict=True):
        spelt = write(bits)
        assert read(spelt) == bits
        if math.isnan(value):
            assert spelt.startswith("nan")
        else:
            assert float.fromhex(spelt) == value


@pytest.mark.parametrize("name", SMALL)
@given(value=st.floats(-400, 400))
def test_decimals_round_as_torch_rounds_them(name: str, value: float) -> None:
    torch = pytest.importorskip("torch")
    single = torch.tensor(value, dtype=torch.float32)  # torch rounds a double twice: start from what f32 holds
    dtype = DType[name]
    expected = single.to(getattr(torch, SMALL[name])).view(getattr(torch, f"uint{dtype.bits}")).item()
    assert immediate.reader(dtype)(repr(single.item())) == expected


# Programs of every kind


def check_survives(program: Program) -> None:
    text = format_program(program)
    assert parse_program(text, no_blob) == program
    assert all(line.isprintable() for line in text.split("\n"))


@given(PROGRAMS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_program_survives_printing(program: Program) -> None:
    check_survives(program)


@pytest.mark.slow
@given(PROGRAMS)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_programs_survive_printing(program: Program) -> None:
    check_survives(program)


@given(tensor_values())
@settings(max_examples=100, deadline=None)
def test_the_sign_of_zero_survives(value: Value) -> None:
    operation = Operation("const", {}, (), {"val": value})
    program = Program({"main": Function((), "CoreML8", {"CoreML8": Block((), (), (operation,))})})
    again = parse_program(format_program(program), no_blob).function().block.operations[0].attributes["val"]
    assert repr(again.data) == repr(value.data)


# Hostile text


def const(value: str) -> str:
    return f"program(1.3) {{ func main<ios18>() {{ int32 a = const()[val = {value}]; }} -> (a); }}"


DEEP = 10_000
HOSTILE = {
    "empty": "",
    "no program": "nonsense",
    "unterminated string": const('string("abc)'),
    "unterminated string with escapes": const('string("' + '\\"' * 100_000),
    "cut off": CLASSIC[: len(CLASSIC) // 2],
    "deep types": const("list<" * DEEP + "int32" + ">" * DEEP + "()"),
    "deep values": const("tuple<>(" + "(" * DEEP + ")" * DEEP + ")"),
    "deep typed values": const("tensor<int32, []>(" * DEEP + "1" + ")" * DEEP),
    "deep lists": const("list<int32, ?>(" + "list<int32, ?>(" * DEEP),
    "deep brackets": const("tensor<int32, [1]>(" + "[" * DEEP + "1" + "]" * DEEP + ")"),
    "deep scalars": const("int32(" * DEEP + "1" + ")" * DEEP),
    "deep blocks": "program(1.3) { func main<ios18>() { " + "op() { b() { " * DEEP,
    "deep arguments": "program(1.3) { func main<ios18>() { op(x = " + "(" * DEEP,
    "a shape of 2**62": const(f"tensor<int32, [{2**62}]>([1, 2])"),
    "a shape of 2**62 twice": const(f"tensor<int32, [{2**62}, {2**62}]>([1, 2])"),
    "a dimension past 2**63": const(f"tensor<int32, [{2**63}]>([1])"),
    "a negative dimension": const("tensor<int32, [-1]>([1])"),
    "a million axes": const("tensor<int32, [" + "1, " * 1_000_000 + "1]>([1])"),
    "a huge integer": const("int32(" + "9" * 1_000_000 + ")"),
    "a huge decimal": const("fp32(" + "1." + "9" * 1_000_000 + ")"),
    "a huge exponent": const("fp32(0x1p99999999999)"),
    "a huge dimension": const("tensor<int32, [" + "9" * 1_000_000 + "]>([1])"),
    "a number that does not fit": const("int8(128)"),
    "an fp16 that does not fit": const("fp16(70000.0)"),
    "a fraction for an integer": const("int32(1.5)"),
    "bits that are no NaN": const("fp16(nan(0x3c00))"),
    "too few elements": const("tensor<int32, [3]>([1, 2])"),
    "an unknown type": const("fp12(1)"),
    "a state constant": const("state<tensor<int32, [1]>>([1])"),
    "a blob without an offset": const('fp16(BLOBFILE(path = string("w")))'),
    "a blob at a negative offset": const('fp16(BLOBFILE(path = string("w"), offset = uint64(-64)))'),
    "an attribute twice": "program(1.3) { func main<ios18>() { op()[a = int32(1), a = int32(2)]; } -> (); }",
    "a function twice": "program(1.3) { func f<ios18>() {} -> (); func f<ios18>() {} -> (); }",
    "something after the end": MODERN + "}",
    "controls": "program(1.0)\0\x1b[31m{}",
    "a missing semicolon": MODERN.replace("];", "]", 1),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_one_line_and_a_place(text: str) -> None:
    with pytest.raises(LoadError) as caught:
        parse_program(text, no_blob, "bad.mil")
    message = caught.value.message
    assert message.isprintable() and len(message) < 300
    name, line, column, reason = message.split(":", 3)
    assert (name, bool(reason.strip())) == ("bad.mil", True)
    assert 1 <= int(line) <= text.count("\n") + 1
    assert int(column) >= 1


def test_the_place_is_the_token_that_is_wrong() -> None:
    with pytest.raises(LoadError, match=r"model\.mil:2:9: expected a name, found ','"):
        parse_program("program(1.0) {\n   func , }", no_blob)


def test_a_hundred_levels_are_read_at_the_usual_recursion_limit() -> None:
    depth = 90
    kind = "list<" * depth + "int32" + ", ?>" * depth
    text = const(f"{kind}({'[' * depth}7{']' * depth})")
    program = parse_program(text, no_blob)
    assert parse_program(format_program(program), no_blob) == program


def test_memory_stays_in_proportion_to_the_text() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LoadError):
        parse_program(const(f"tensor<fp32, [{2**40}]>([{'0x1p+0, ' * 20_000}0x1p+0])"), no_blob)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024  # KiB, for a text of 160 kB
