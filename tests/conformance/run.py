"""``make conformance``: coremltools' op tests through tlkit's executor, summed up op by op.

    python -m tests.conformance.run [--suite ops|torch|nn|classic] [--per-function N] [--off-by 0.01] [--jobs 2]

Prints how many cases passed, failed and were excluded for each test class; exits 1 if any failed.

The suite ``classic`` (scikit-learn, XGBoost, libsvm, pipelines) converts with coremltools, which takes scikit-learn up
to 1.5.1: ``--python`` names an interpreter that has it, as ``make conformance`` makes one in .venv-classic. Elsewhere
nothing of the suite can be collected, which is said. Whole, it takes long: libsvm trains for minutes in single cases.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = {
    "ops": ["converters/mil/mil/ops/tests"],
    "torch": ["converters/mil/frontend/torch/test/test_torch_ops.py"],
    "nn": ["test/neural_network"],
    "classic": [f"test/{folder}" for folder in ("sklearn_tests", "xgboost_tests", "pipeline")],
}
ENDINGS = (0, 1)
"""pytest's exit status where it ran every case, and those passed or some failed."""


def main() -> int:
    """Run the suite and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="ops")
    parser.add_argument("--per-function", type=int, default=3)
    parser.add_argument("--off-by", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the cases")
    parser.add_argument("--only", default="", help="pytest -k expression")
    parser.add_argument("--engine", default="eager", help="what runs the programs: eager, openvino, onnxruntime")
    parser.add_argument("--table", default="", help="keep the records, one JSON line a case, in this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(options.table or Path(folder) / "table.jsonl")
        ended = _run(options, table)
        told = map(json.loads, table.read_text().splitlines())
        records = {record["case"]: record for record in told}  # a case that fails after its call is told of twice
    failed = _report(list(records.values()))
    if ended not in ENDINGS:
        print(f"pytest did not run them all: it ended with {ended}, and says above why")
    return failed or int(ended not in ENDINGS)


def _run(options: argparse.Namespace, table: Path) -> int:
    """Run the cases; return pytest's exit status."""
    spec = importlib.util.find_spec("coremltools")
    assert spec is not None and spec.submodule_search_locations
    tests = [str(Path(spec.submodule_search_locations[0]) / part) for part in SUITES[options.suite]]
    command = [options.python, "-m", "pytest", "-q", "--tb=line", "-W", "ignore", "--import-mode=importlib"]
    # This project's settings and modules, wherever the wheel lies; the wheel's conftest wants a Mac.
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--noconftest", "-p", "no:cacheprovider"]
    command += ["-p", "tlkit.anywhere", "-p", "tests.conformance.plugin", "--table", str(table)]
    command += ["--per-function", str(options.per_function), "--off-by", str(options.off_by)]
    command += ["-n", str(options.jobs)] if options.jobs > 1 else []
    command += ["-k", options.only] if options.only else []
    settings = {"PYMIL_TEST_TARGETS": "mlprogram", "INCLUDE_MIL_FP32_UNIT_TESTS": "1", "OMP_NUM_THREADS": "1"}
    settings |= {"TLKIT_ENGINE": options.engine, "TLKIT_NO_CACHE": "1"}
    return subprocess.run([*command, *tests], env=os.environ | settings, check=False, stdout=sys.stderr).returncode


def _report(records: list[dict[str, str]]) -> int:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        excluded = record["outcome"] == "skipped" and "excluded:" in record["reason"]
        rows[_title(record["case"])]["excluded" if excluded else record["outcome"]] += 1
    columns = ("passed", "failed", "excluded", "skipped")
    print(f"{'':44}" + "".join(f"{column:>10}" for column in columns))
    for title, counts in sorted(rows.items()):
        print(f"{title:44}" + "".join(f"{counts[column] or '':>10}" for column in columns))
    total: Counter[str] = sum(rows.values(), Counter())
    print(f"{'all':44}" + "".join(f"{total[column]:>10}" for column in columns))
    for precision in ("f32", "f16"):
        judged = [record["outcome"] for record in records if record["judged"] == precision]
        share = judged.count("failed") / max(len(judged), 1)
        print(f"with {precision} outputs to compare: {len(judged)}, failed: {judged.count('failed')} ({share:.1%})")
    return 1 if total["failed"] else 0


def _title(case: str) -> str:
    path, _, name = case.partition("::")
    opset = next((part for part in path.split("/") if part.startswith(("iOS", "coreml_dialect"))), "")
    return f"{opset}/{name.partition('::')[0]}" if opset else name.partition("::")[0]


if __name__ == "__main__":
    raise SystemExit(main())
