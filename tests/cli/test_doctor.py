"""``tlkit doctor``: both modes say the same, and nothing large is imported for it.

Covers tlkit/core/doctor.py.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.commands import Shell
from tlkit.host.machine import gpu_expected


def test_text_and_json_agree(tlkit: Shell) -> None:
    text, document = tlkit("doctor"), tlkit("doctor", "--json").json()
    assert text.code == 0
    for finding in (*document["units"], *document["measurable"]):
        assert any(
            line.startswith(finding["what"]) and f" {finding['status']} " in line for line in text.out.splitlines()
        )
    assert document["machine"]["cpu"] in text.out


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have all of it")
def test_off_a_mac_what_is_missing_is_said() -> None:
    from tlkit.core.doctor import doctor

    found = doctor()
    units = {unit.what: unit for unit in found.units}
    assert [units[name].status for name in ("cpu", "ane")] == ["yes", "no"]
    assert (units["gpu"].status == "yes") == gpu_expected()
    missing = [finding for finding in found.measurable if finding.status == "no"]
    assert all(finding.detail for finding in missing)


def test_it_is_cheap() -> None:
    code = "import sys; sys.argv = ['tlkit', 'doctor']\nfrom tlkit.cli.app import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print('IMPORTED', *({'torch', 'coremltools', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "IMPORTED"
