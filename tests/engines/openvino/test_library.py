"""OpenVINO as tlkit imports it: nothing is missing from it.

Covers tlkit/engines/openvino/library.py.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino")


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_converter_is_imported_when_it_is_asked_for() -> None:
    code = "import sys; import tlkit.engines.openvino.library; import openvino; name = 'openvino.tools.ovc'; "
    assert said(f"{code} print(name in sys.modules, hasattr(openvino, 'absent'))") == "False False"
    assert said(f"{code} print(openvino.convert_model.__module__.startswith(name))") == "True"
    assert said(f"{code} from openvino import convert_model; print(convert_model is openvino.convert_model)") == "True"


def test_an_openvino_that_is_there_is_taken_as_it_is() -> None:
    code = "import openvino; made = openvino.convert_model; from tlkit.engines.openvino import library; "
    assert said(f"{code} print(library.openvino is openvino, '__getattr__' in vars(openvino))") == "True False"
