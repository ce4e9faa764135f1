"""``.pt2`` archives: none of what they hold is run, and what torch.export writes opens as torch itself opens it.

covers tlkit/core/convert/source/pt2_program.py tlkit/core/convert/source/operators.py
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.attacks import attempt, untouched
from tests.core.convert.source import exported_modules as modules
from tlkit.core.convert.source.pt2 import load_program
from tlkit.errors import LoadError

Members = dict[str, bytes]
Change = Callable[[Members], Members]


class Makes:
    """Unpickled, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """What is in an archive with a dynamic size, weights, a constant and a condition, by the names within it."""
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    program = torch.export.export(
        modules.Small(), (torch.ones(4, 3),), dynamic_shapes={"x": {0: 2 * Dim("half", min=1, max=9)}}
    )
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def written(path: Path, members: Members, root: str = "net/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{root}{name}", data)
    return path


def program(change: Callable[[dict[str, Any]], None], name: str = "models/model.json") -> Change:
    def changed(members: Members) -> Members:
        content = json.loads(members[name])
        change(content)
        return {**members, name: json.dumps(content).encode()}

    return changed


def replaced(pattern: str, new: str, name: str = "models/model.json") -> Change:
    def changed(members: Members) -> Members:
        text, count = re.subn(pattern, lambda match: new, members[name].decode())
        assert count, pattern
        return {**members, name: text.encode()}

    return changed


def more(name: str, data: bytes) -> Change:
    return lambda members: {**members, name: data}


def spec(kind: str, context: Any, children: int = 0) -> Change:
    leaf = {"type": None, "context": None, "children_spec": []}
    tree = {"type": kind, "context": context, "children_spec": [leaf] * children}

    def change(content: dict[str, Any]) -> None:
        content["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, tree])

    return program(change)


def expression(text: str) -> Change:
    return replaced(r"Mul\(Integer\(2\), Symbol\([^()]*\)\)", text.replace("\\", "\\\\").replace('"', '\\"'))


def target(text: str) -> Change:
    return replaced(r"torch\.ops\.aten\.linear\.default", text)


def renamed(old: str, new: str) -> Change:
    return replaced(f'"{old}"', json.dumps(new))


def attacks(canary: str) -> dict[str, tuple[Change, str]]:
    code = f"__import__('os').mkdir({canary!r})"
    pickled = pickle.dumps(Makes(canary))
    buffer = io.BytesIO()
    torch.save({"x": Makes(canary)}, buffer)
    legacy = buffer.getvalue()

    def constant(path: str, use_pickle: bool) -> Change:
        def change(content: dict[str, Any]) -> None:
            item = next(iter(content["config"].values()))
            item["path_name"], item["use_pickle"] = path, use_pickle

        table = program(change, "data/constants/model_constants_config.json")
        return lambda members: {**table(members), f"data/constants/{path}": pickled}

    def guard(text: str) -> Change:
        return program(lambda content: content.update(guards_code=[text]))

    def ranged(name: str) -> Change:
        return program(lambda content: content["range_constraints"].update({name: {"min_val": 0, "max_val": 9}}))

    def metadata(key: str, text: str) -> Change:
        return program(lambda content: content["graph_module"]["graph"]["nodes"][0]["metadata"].update({key: text}))

    def argument(value: dict[str, Any]) -> Change:
        return program(lambda content: content["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(arg=value))

    sums = "*".join(f"(s{index}+s{index + 100})" for index in range(40))
    factory = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
    enum = json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": "y"}])
    return {
        "legacy_weights": (more("data/weights/model.pt", legacy), "pickled objects"),
        "legacy_constants": (more("data/constants/model.pt", legacy), "pickled objects"),
        "legacy_pickle": (more("data/constants/model.pt", pickled), "pickled objects"),
        "samples": (more("data/sample_inputs/model.pt", legacy), ""),
        "opaque": (constant("opaque_obj_0", False), "pickled objects"),
        "custom": (constant("custom_obj_0", False), "pickled objects"),
        "pickled_constant": (constant("tensor_0", True), "is pickled"),
        "other_model": (lambda members: {**members, "models/evil.txt": members["models/model.json"]}, "does not write"),
        "case": (lambda members: {**members, "MODELS/model.json": b"{}"}, "one name to some systems"),
        "library": (more("data/aotinductor/model/x.so", b"x"), "compiled code"),
        "member": (more("data/weights/../../x", b"x"), "leads out"),
        "expression": (expression(code), "the expression"),
        "attribute": (expression("Symbol('s0').__class__"), "the expression"),
        "powers": (expression("9**9**9**9"), "the expression"),
        "long_powers": (
            expression("Pow(Pow(Pow(Integer(9), Integer(64)), Integer(64)), Integer(64))"),
            "the expression",
        ),
        "power_in_disguise": (expression("9^9^9^9"), "the expression"),
        "shift": (expression("LShift(Integer(1), Integer(1000000000000))"), "the expression"),
        "sums": (expression(sums), "the expression"),
        "factorial": (expression("99999999!"), "the expression"),
        "nested": (expression("(" * 300 + "s0" + ")" * 300), "the expression|damaged|cannot load|"),
        "second_line": (expression(f"s0 #\\n{code}"), "the expression|JSON"),
        "symbol_name": (expression("Symbol('__import__(1)')"), "the expression"),
        "counter": (ranged("u999999999999"), "the range of"),
        "counter_in_disguise": (ranged("u 999_999_999_999 "), "the range of"),
        "hub": (target("torch.hub.load"), "a call of"),
        "globals": (target("torch.ops.load_library.__globals__.clear"), "a call of"),
        "saves": (target("torch.ops.aten.save.default"), "a call of"),
        "maps": (target("torch.ops.aten.from_file.default"), "a call of"),
        "loads": (target("torch.ops.debugprims.load_tensor.default"), "a call of"),
        "prints": (target("torch.ops.higher_order.print"), "a call of"),
        "python": (target("_operator.attrgetter"), "a call of"),
        "extension": (target("#evil:op"), "a call of"),
        "operator_argument": (argument({"as_operator": "torch.hub.load"}), "a call of"),
        "placeholder": (renamed("x", f"x={code}"), "the name"),
        "value": (renamed("linear", f"a; {code}; b"), "the name"),
        "keyword": (renamed("linear", "import"), "the name"),
        "parameter": (renamed("layer.weight", f'layer.a") or {code} or ("'), "the name|cannot load"),
        "forward": (
            replaced(r'"forward_arg_names": \["x"\]', f'"forward_arg_names": {json.dumps([f"x={code}"])}'),
            "the name",
        ),
        "import": (spec("collections.defaultdict", factory), "a container of the type"),
        "enum": (spec("builtins.dict", enum, 1), "a container with the keys"),
        "container": (spec("evil.Container", "null"), "a container of the type"),
        "guard": (guard(code), ""),
        "guard_message": (guard(f"L['x'].size()[0] == '\" + {code} + \"'"), ""),
        "guard_powers": (guard("9**9**9**9 > L['x'].size()[0]"), ""),
        "source_fn": (metadata("source_fn_stack", "x,torch.hub.load"), ""),
        "custom_metadata": (metadata("custom", "[" * 100_000), ""),
        "digits": (argument({"as_int": 10**4000}), "digits|JSON|integer string"),
        "deep": (replaced(r"^\{", "[" * 100_000), "nested too deeply|JSON"),
        "swells": (
            replaced(
                r'"sizes": \[\{"as_int": 3\}\](.*?)"strides": \[\{"as_int": 1\}\]',
                '"sizes": [{"as_int": 1099511627776}], "requires_grad": false, '
                '"device": {"type": "cpu", "index": null}, "strides": [{"as_int": 0}]',
                "data/constants/model_constants_config.json",
            ),
            "repeats the few bytes",
        ),
        "outside": (
            replaced(
                r'"storage_offset": \{"as_int": 0\}',
                '"storage_offset": {"as_int": 4000000000000}',
                "data/weights/model_weights_config.json",
            ),
            "past the end",
        ),
    }


@pytest.mark.slow
def test_each_attack_is_refused_or_does_nothing(tmp_path: Path, members: Members) -> None:
    outside, files = tmp_path / "outside", tmp_path / "files"
    outside.mkdir()
    files.mkdir()
    (outside / "canary").write_text("alive")
    made = attacks(str(outside / "made"))
    paths = [written(files / f"{name}.pt2", change(members)) for name, (change, _) in made.items()]
    with untouched(outside, files):
        told = attempt("tests.attacks:program", paths, tmp_path / "home", memory=1 << 32, seconds=300)
    for name, (_, reason) in made.items():
        message = told[f"{name}.pt2"]
        if reason:
            assert message is not None or reason.endswith("|"), f"{name} was opened"
            assert re.search(reason, message or ""), f"{name}: {message}"
        else:
            assert message is None, f"{name}: {message}"


def test_trust_opens_what_is_refused(tmp_path: Path, members: Members) -> None:
    path = written(tmp_path / "net.pt2", {**members, "data/notes": b"x"})
    with pytest.raises(LoadError, match="does not write") as caught:
        load_program(path)
    assert "--trust" in caught.value.hint
    assert load_program(path, trust=True).graph


def same(path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Assert that torch and tlkit make the same of the archive: weights, and what it computes."""
    theirs, mine = torch.export.load(path), load_program(path)
    assert mine.graph_module.code == theirs.graph_module.code
    assert str(mine.graph_signature) == str(theirs.graph_signature)
    assert {str(key): value for key, value in mine.range_constraints.items()} == {
        str(key): value for key, value in theirs.range_constraints.items()
    }
    assert list(mine.state_dict) == list(theirs.state_dict)
    for name, value in theirs.state_dict.items():
        found = mine.state_dict[name]
        assert (type(found), found.dtype, found.stride(), found.requires_grad) == (
            type(value),
            value.dtype,
            value.stride(),
            value.requires_grad,
        )
        assert torch.equal(
            found.view(torch.uint8) if found.dtype.itemsize == 1 else found,
            value.view(torch.uint8) if value.dtype.itemsize == 1 else value,
        )
    torch.manual_seed(1)
    expected = theirs.module()(*args, **kwargs)
    torch.manual_seed(1)
    torch.testing.assert_close(mine.module()(*args, **kwargs), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", modules.CASES)
def test_what_torch_writes_opens_as_torch_opens_it(tmp_path: Path, name: str) -> None:
    module, args, kwargs, shapes = modules.CASES[name]()
    program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    same(tmp_path / "net.pt2", args, kwargs)


def test_tied_weights_stay_one(tmp_path: Path) -> None:
    module, args, kwargs, _ = modules.CASES["buffers"]()
    torch.export.save(torch.export.export(module, args, kwargs), tmp_path / "net.pt2")
    found = load_program(tmp_path / "net.pt2").state_dict
    assert found["out.weight"].data_ptr() == found["embedding.weight"].data_ptr()
    assert found["part"].untyped_storage().data_ptr() == found["numbers"].untyped_storage().data_ptr()


def pickled(tensors: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("layout", ["2.8", "2.7"])
def test_older_layouts_open(tmp_path: Path, members: Members, layout: str) -> None:
    """torch 2.8 pickled weights and constants inside the archive; 2.7 put four members side by side."""
    path = written(tmp_path / "now.pt2", members)
    loaded = torch.export.load(path)
    weights, constants = pickled(dict(loaded.state_dict)), pickled(dict(loaded.constants))
    if layout == "2.8":
        kept = {name: data for name, data in members.items() if not re.match("data/(weights|constants)/", name)}
        older = {**kept, "data/weights/model.pt": weights, "data/constants/model.pt": constants}
        written(tmp_path / "net.pt2", older)
    else:
        older = {
            "version": b"8.8",
            "serialized_exported_program.json": members["models/model.json"],
            "serialized_state_dict.pt": weights,
            "serialized_constants.pt": constants,
            "serialized_example_inputs.pt": members["data/sample_inputs/model.pt"],
        }
        written(tmp_path / "net.pt2", older, root="")
    same(tmp_path / "net.pt2", (torch.ones(6, 3),), {})


def test_conditions_on_inputs_are_kept(tmp_path: Path, members: Members) -> None:
    loaded = load_program(written(tmp_path / "net.pt2", members))
    with pytest.raises(Exception, match=r"of the form 2\*s"):
        loaded.module()(torch.ones(5, 3))
