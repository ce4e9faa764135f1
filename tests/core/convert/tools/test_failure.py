"""What coremltools stumbles over is told in PyTorch's words: operation, module and line, and nothing of its inside."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.convert import convert
from tlkit.core.convert.tools.failure import conversion_error
from tlkit.errors import ConversionError
from tlkit.host.quiet import Heard

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
OPAQUE = re.compile(
    r"<class|np\.|NoneType|KeyError|AssertionError|IndexError|TypeError|Cannot delete|pop index|Var\b|\bis\d"
)


class Inner(nn.Module):
    """Applies an operation that coremltools takes in other forms only."""

    def __init__(self, op: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Any:
        return self.op(x)


def outer(op: Callable[[Tensor], Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), Inner(op))


CASES = {
    "histc": lambda x: torch.histc(x, 5),
    "frexp": lambda x: torch.frexp(x)[0],
    "lu": lambda x: torch.linalg.lu_factor(x[:4] @ x[:4].T)[0],
}


@pytest.mark.parametrize("name", CASES)
def test_the_line_and_the_module_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(outer(CASES[name]), tmp_path / "m.mlpackage", inputs=["x=6x4"])
    said = f"{caught.value.message} {caught.value.hint}"
    assert not OPAQUE.search(said)
    assert re.search(r"1 at test_failure\.py:\d+|in 1, test_failure\.py:\d+", caught.value.message)


def raised(error: Exception, heard: str = "") -> str:
    words = Heard()
    words.write(heard + "\n")
    return conversion_error(error, words, "9.0").message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError(2), "its translation fails"),
        (IndexError("pop index out of range"), "its translation fails"),
        (TypeError("'NoneType' object is not iterable"), "its translation fails"),
        (ValueError("should have shape [np.int32(4), np.int32(6)]"), "its translation fails"),
        (ValueError("only 'nearest' is supported"), "only 'nearest' is supported"),
        (
            ValueError(
                'Op "23" (op_type: inverse) Input x="c" expects tensor or scalar of dtype from type domain '
                "['fp16', 'fp32'] but got tensor[2,int32]"
            ),
            "Core ML's inverse takes fp16 or fp32, not int32",
        ),
        (ValueError("shapes (1, is8) and (1, is9) must match"), "two unknown sizes are equal"),
    ],
)
def test_reasons_are_words_or_left_out(error: Exception, said: str) -> None:
    message = raised(error, "ERROR - converting 'mean' op (located at: 'inner/layers/0/5'):")
    assert message.startswith("coremltools 9.0 cannot convert the torch op 'mean' (in layers.0)")
    assert said in message and not OPAQUE.search(message)


def test_complex_numbers_are_blamed_where_they_are() -> None:
    words = Heard()
    words.write("ERROR - converting 'view' op (located at: 'inner/5'):\n")
    unknown = conversion_error(ValueError("complex shapes (1, is8) and (1, is9) must match"), words, "9.0")
    assert "complex" not in unknown.hint and "view and reshape" in unknown.hint
    words.write("ERROR - converting 'view_as_complex' op (located at: 'inner/5'):\n")
    assert "no complex numbers" in conversion_error(ValueError("complex x is not taken"), words, "9.0").hint
