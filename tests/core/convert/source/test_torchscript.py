"""TorchScript whose code would do more than compute is refused before any of it runs; what only computes opens.

covers tlkit/core/convert/source/script_check.py
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.attacks import attempt, untouched
from tlkit import convert
from tlkit.core.convert.source import torchscript
from tlkit.core.convert.source.source import load_source
from tlkit.core.convert.source.torchscript import open_script
from tlkit.errors import ConversionError, LoadError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class SavesInForward(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save([x], self.path)
        return x


class SavesInAFunction(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return _saved(x, self.path)


def _saved(x: Tensor, path: str) -> Tensor:
    for _ in range(2):
        if x.sum() > 0:
            torch.save([x], path)
    return x


class SavesInAnotherMethod(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __len__(self) -> int:
        torch.save([1], self.path)
        return 1

    def forward(self, x: Tensor) -> Tensor:
        return x


class MapsAFile(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_file(self.path, True, 64) + x


class Swells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("large", torch.zeros(1).expand(1 << 40))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.large[0]


class Prints(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print(x)  # noqa: T201
        return x


class SavesWhileItLoads(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save([1], self.path)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.packed = torch.ops.quantized.linear_prepack(
            torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 0, torch.qint8), None
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed)


def changed(script: nn.Module, goal: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Save ``script`` with each member changed (None leaves it out)."""
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(goal, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return goal


def with_code(goal: Path, expression: str, before: str = "") -> Path:
    """A script that returns ``expression`` where x + 1 stood, with ``before`` above its class."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("__torch__.py") and not name.endswith("test_torchscript.py"):
            return data
        assert b"torch.add(x, 1)" in data
        return before.encode() + data.replace(b"torch.add(x, 1)", expression.encode())

    return changed(torch.jit.script(Plain()), goal, change)


def renamed_member(goal: Path, old: str, new: str) -> Path:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Plain()), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(goal, "w") as made:
        for name in source.namelist():
            made.writestr(name, source.read(name))
            if name.endswith(old):
                made.writestr(name.replace(old, new), source.read(name))
    return goal


def behind_another(goal: Path, canary: str) -> Path:
    """Two archives in one file: a reader that trusts the last directory sees a plain script, others the first."""
    evil, good = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(SavesInForward(canary)), evil)
    torch.jit.save(torch.jit.script(Plain()), good)
    goal.write_bytes(evil.getvalue() + good.getvalue())
    return goal


BRANCH = "torch.add(x, {}) if bool(torch.gt(torch.sum(x), 0)) else x"
"""What is frozen, for its branch: torch computes then what does not depend on x."""


def attacks(folder: Path, canary: str) -> dict[str, tuple[Path, str]]:
    saved = f"torch.save([x], {canary!r})"

    def script(name: str, module: nn.Module) -> Path:
        path = folder / f"{name}.pt"
        torch.jit.script(module).save(str(path))
        return path

    def coded(name: str, expression: str, before: str = "") -> Path:
        return with_code(folder / f"{name}.pt", expression, before)

    def entered(name: str, statement: str, argument: str = "value") -> Path:
        def change(member: str, data: bytes) -> bytes:
            if not member.endswith("grad_mode.py"):
                return data
            assert b"torch.set_grad_enabled(False)" in data and b"traceback" in data
            data = data.replace(b"torch.set_grad_enabled(False)", statement.encode())
            return data.replace(b"traceback", argument.encode())

        return changed(torch.jit.script(WithoutGradients()), folder / f"{name}.pt", change)

    deep = 20_000
    function = f"def hidden(x: Tensor) -> Tensor:\n  _0 = {saved}\n  return x\n"
    compared = (
        f"class C(NamedTuple):\n  x : int\n  def __lt__(self, other) -> bool:\n    _0 = {saved}\n    return True\n"
    )
    return {
        "forward": (script("forward", SavesInForward(canary)), "aten::save"),
        "function": (script("function", SavesInAFunction(canary)), "aten::save"),
        "method": (script("method", SavesInAnotherMethod(canary)), "aten::save"),
        "mapped": (script("mapped", MapsAFile(canary)), "aten::from_file"),
        "prints": (script("prints", Prints()), "prim::Print"),
        "loading": (script("loading", SavesWhileItLoads(canary)), "__[gs]etstate__"),
        "torchbind": (script("torchbind", Quantized()), "quantization has packed"),
        "entered": (entered("entered", f"torch.save([1], {canary!r})"), "__enter__"),
        "entered_after_a_gap": (
            entered("entered_after_a_gap", f"torch.set_grad_enabled(False)\n\n    torch.save([1], {canary!r})"),
            "__enter__|damaged",
        ),
        "entered_by_another_torch": (
            entered("entered_by_another_torch", "torch.set_grad_enabled(torch)", "torch"),
            "__enter__",
        ),
        "entered_with_torch_rebound": (entered("entered_with_torch_rebound", "torch = self.prev"), "__enter__"),
        "as_a_method": (coded("as_a_method", f"x.save({canary!r})"), "aten::save|damaged"),
        "by_ops": (coded("by_ops", f"ops.aten.save([x], {canary!r})"), "aten::save|damaged"),
        "hidden_name": (coded("hidden_name", f"torch.   save([x], {canary!r})"), "aten::save|damaged"),
        "other_namespace": (
            coded("other_namespace", "ops.profiler._record_function_enter('x', None)"),
            "profiler|damaged",
        ),
        "compared": (coded("compared", "torch.add(x, 1)", compared), "__lt__"),
        "unused": (coded("unused", "torch.add(x, 1)", function), ""),
        "brackets": (coded("brackets", "(" * deep + "x" + ")" * deep), "too deeply"),
        "sums": (coded("sums", "x" + "+x" * deep), "too deeply"),
        "signs": (coded("signs", "-" * deep + "x"), "too deeply"),
        "calls": (coded("calls", "torch.add(" * deep + "x" + ", 1)" * deep), "too deeply"),
        "lists": (coded("lists", "[" * deep + "x" + "]" * deep), "too deeply"),
        "strings_that_hide": (coded("strings_that_hide", "'\\')' + (" * deep + "x"), "too deeply|not written as"),
        "types_in_comments": (
            coded("types_in_comments", f"torch.add(x, 1)  # type: {'List[' * deep}int{']' * deep}"),
            "too deeply",
        ),
        "branches": (coded("branches", "x\n" + "    elif x:\n      return x\n" * deep), "too deeply"),
        "fills": (coded("fills", BRANCH.format("torch.zeros([4294967296])")), ""),
        "swells": (script("swells", Swells()), "repeats 4 bytes"),
        "triple": (coded("triple", '"""' + "x" + '"""'), "not written as"),
        "case": (renamed_member(folder / "case.pt", "data.pkl", "DATA.pkl"), "one name to some"),
        "older_layout": (
            renamed_member(folder / "older_layout.pt", "data.pkl", "model.json"),
            "not one that TorchScript",
        ),
        "two_archives": (behind_another(folder / "two_archives.pt", canary), "believe|twice|directory|share bytes"),
        "pickle": (
            changed(
                torch.jit.script(Plain()),
                folder / "pickle.pt",
                lambda name, data: b"\x80\x02cos\nsystem\n(U\x04true\x85R." if name.endswith("/data.pkl") else data,
            ),
            r"os\.system|pickle",
        ),
    }


@pytest.mark.slow
def test_each_attack_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    (tmp_path / "files").mkdir()
    made = attacks(tmp_path / "files", str(outside / "canary"))
    with untouched(outside, tmp_path / "files"):
        told = attempt("tests.attacks:source", [path for path, _ in made.values()], tmp_path / "home", memory=1 << 32)
    for name, (path, reason) in made.items():
        message = told[path.name]
        if reason:
            assert message is not None, f"{name} was opened"
            assert re.search(reason, message), f"{name}: {message}"
            assert path.name in message


def test_what_crashes_torch_is_damaged(tmp_path: Path, root: Path) -> None:
    """A batch normalization whose parts were damaged: torch.jit.freeze dies of it."""
    (case,) = (root / "tests/fuzz/corpus").glob("torchscript-crash-*.case")
    path = tmp_path / "net.pt"
    path.write_bytes(case.read_bytes())
    with pytest.raises(LoadError, match=r"net\.pt: damaged TorchScript: torch's own reader crashed"):
        open_script(path)


class WithoutGradients(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x + 1
            if bool(y.sum() > 0):
                with torch.no_grad():
                    y = y * 2
        return y * 3


def test_no_grad_is_left_out(tmp_path: Path) -> None:
    """It changes no value, and no converter knows it."""
    torch.jit.script(WithoutGradients()).save(str(tmp_path / "net.pt"))
    opened = open_script(tmp_path / "net.pt")
    assert "no_grad" not in str(opened.inlined_graph) and "prim::E" not in str(opened.inlined_graph)
    x = torch.ones(2, requires_grad=True)
    assert torch.equal(opened(x), torch.full((2,), 12.0)) and torch.is_grad_enabled()


class Holds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("held", torch.ones(1 << 24))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.held[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds private memory")
def test_memory_is_bounded_and_budget_gives_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(Holds()).save(str(path))
    monkeypatch.setattr(torchscript, "_SPARE", 20 << 20)
    monkeypatch.setattr(torchscript, "_FOLD", 0)
    with pytest.raises(LoadError, match=r"net\.pt: to open it takes far more memory than its size") as caught:
        open_script(path)
    assert "TLKIT_BUDGET=8" in caught.value.hint
    monkeypatch.setenv("TLKIT_BUDGET", "8")
    assert torch.equal(open_script(path)(torch.ones(2)), 2 * torch.ones(2))


def test_opening_leaves_nothing_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_code(tmp_path / "net.pt", BRANCH.format("1"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert torch.equal(open_script(path)(torch.ones(2)), 2 * torch.ones(2))
    assert not list((tmp_path / "temporary").iterdir())


def test_trust_opens_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(Prints()).save(str(path))
    with pytest.raises(LoadError, match="prim::Print") as caught:
        open_script(path)
    assert "--trust" in caught.value.hint
    assert open_script(path, trust=True)(torch.ones(1)) == 1
    assert load_source(path, trust=True).module(torch.ones(1)) == 1


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.register_buffer("save", torch.ones(3))
        self.file = "save.from_file"

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2:
            raise ValueError("torch.save() and __setstate__ in a message: (((")
        for part in self.parts:
            x = part(x).relu() if x.sum() > 0 else torch.einsum("ij->ij", x)
        return x + self.save.to(torch.float16).float()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Plain(), (2,)),
        (Branches(), (2, 3)),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU("tanh"), nn.Upsample(scale_factor=2)),
            (1, 3, 5, 5),
        ),
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (1, 3, 4)),
        (nn.GroupNorm(2, 4), (1, 4, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_what_only_computes_opens_and_computes_the_same(
    tmp_path: Path, module: nn.Module, shape: tuple[int, ...], how: str
) -> None:
    module.eval()
    x = torch.rand(shape)
    script = torch.jit.trace(module, x, check_trace=False) if how == "trace" else torch.jit.script(module)
    (torch.jit.freeze(script) if how == "freeze" else script).save(str(tmp_path / "net.pt"))
    with torch.no_grad():
        torch.testing.assert_close(open_script(tmp_path / "net.pt")(x), module(x), atol=1e-5, rtol=1e-5)


class Greedy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(1 << 33).sum()


def test_what_a_script_makes_while_it_is_converted_has_a_budget(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Greedy()), tmp_path / "greedy.pt")
    with pytest.raises(ConversionError, match=r"greedy\.pt: it makes a value of 8589934592 elements") as caught:
        convert(tmp_path / "greedy.pt", tmp_path / "o.mlpackage", inputs=["x=1x4"])
    assert "TLKIT_BUDGET" in (caught.value.hint or "")
    assert not (tmp_path / "o.mlpackage").exists()
