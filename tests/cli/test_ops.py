"""``tlkit ops`` as a user runs it.

Covers tlkit/core/inspect/oplist.py.
"""

from tests.cli.commands import Shell


def test_text_and_json_list_the_same(tlkit: Shell) -> None:
    text, answer = tlkit("ops"), tlkit("ops", "--json").json()
    assert text.code == 0
    lines = text.out.splitlines()
    for entry in answer["ops"]:
        # Inputs do not fit beside the rest in 80 columns: names are above.
        row = lines[lines.index(entry["name"]) + 1].split()
        assert row[:4] == ["family", entry["family"], "opsets", entry["opsets"][0]]
    assert f"{len(answer['ops'])} operations" in text.out
    assert [entry["name"] for entry in answer["not_covered"]] == ["custom_layer"]
    assert "not covered: custom_layer" in text.out


def test_a_pattern_selects_by_name_or_family(tlkit: Shell) -> None:
    by_name = tlkit("ops", "reduce_arg*", "--json").json()
    by_family = tlkit("ops", "recurrent", "--json").json()
    assert [entry["name"] for entry in by_name["ops"]] == ["reduce_argmax", "reduce_argmin"]
    assert by_name["ops"][0]["opsets"] == ["iOS15", "iOS17"]
    assert [entry["name"] for entry in by_family["ops"]] == ["gru", "lstm", "rnn"]
    assert "x" in by_family["ops"][0]["inputs"]
    assert "output_sequence?" in by_family["ops"][0]["inputs"]


def test_a_pattern_that_fits_nothing_is_a_usage_error(tlkit: Shell) -> None:
    outcome = tlkit("ops", "frobnicate")
    assert outcome.code == 2
    assert outcome.out == ""
    assert "frobnicate" in outcome.err


def test_tlkits_own_operations_are_listed_apart(tlkit: Shell) -> None:
    own = {item["name"] for item in tlkit("ops", "--dialect", "--json").json()["ops"]}
    assert "tlkit.custom" in own and all(name.startswith("tlkit.") for name in own)
    assert not own & {item["name"] for item in tlkit("ops", "--json").json()["ops"]}
