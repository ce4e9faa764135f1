"""Attention against its formula in numpy."""

import numpy as np

from tests.mil.ops.optable import VALUE, case, rows, table

R = np.random.default_rng(3)


def qkv(*batch, length=4, source=5, width=8, value_width=6):
    return {
        "query": R.normal(size=(*batch, length, width)),
        "key": R.normal(size=(*batch, source, width)),
        "value": R.normal(size=(*batch, source, value_width)),
    }


def attention(query, key, value, attn_mask=None):
    scores = np.einsum("...le,...se->...ls", query, key) / np.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores + (np.where(attn_mask, 0, -np.inf) if attn_mask.dtype == bool else attn_mask)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


KEEP = np.tril(np.ones((4, 5), bool))

CASES = rows(
    case("scaled_dot_product_attention", qkv(2), since=18, expected=VALUE, label="rank 3"),
    case("scaled_dot_product_attention", qkv(2, 3), since=18, expected=attention, label="rank 4"),
    case("scaled_dot_product_attention", qkv(1, 2, 3), since=18, expected=attention, label="rank 5"),
    case(
        "scaled_dot_product_attention", qkv(2, 3) | {"attn_mask": KEEP}, since=18, expected=attention, label="bool mask"
    ),
    case(
        "scaled_dot_product_attention",
        qkv(2, 3) | {"attn_mask": R.normal(size=(1, 1, 4, 5))},
        since=18,
        expected=attention,
        label="float mask",
    ),
)

test_op = table(CASES)
