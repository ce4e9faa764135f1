"""The classifier's op, and what an engine shows of it.

Covers tlkit/engines/labels.py.
"""

import numpy as np
import pytest

from tests.mil.ops.optable import Case, case, read, rows, run, table
from tlkit.engines.labels import presenters

SCORES = np.array([[0.125, 0.5, 0.375]], np.float32)


def program(*names):
    def build(mb, x):
        from coremltools.converters.mil.mil.operation import mil_list

        return mb.classify(probabilities=x, classes=mb.const(val=mil_list(list(names))))

    return build


CASES = rows(
    case(
        "classify",
        {"x": SCORES},
        program=program("cat", "dog", 'it\'s "both"\n'),
        expected=(np.int64(1), SCORES[0]),
    )
)

test_op = table(CASES)


@pytest.mark.parametrize("names", [("cat", "dog", "cow"), (np.int64(10), np.int64(-20), np.int64(1 << 40))])
def test_label_and_dictionary(names):
    row = Case("classify", {"x": SCORES}, program=program(*names))
    function = read(row)
    shown = presenters(function)
    outputs = run(function, row, "f16")
    label, probabilities = (shown[name](value) for name, value in zip(function.block.outputs, outputs, strict=True))
    assert label == names[1]
    assert type(label) in (str, int)
    assert probabilities == dict(zip(names, SCORES[0].tolist(), strict=True))
