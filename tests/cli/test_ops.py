"""``tlkit ops`` as a user runs it."""

import json
import subprocess
import sys


def tlkit(*arguments):
    return subprocess.run([sys.executable, "-m", "tlkit", *arguments], capture_output=True, text=True, check=False)


def test_text_and_json_list_the_same():
    text, document = tlkit("ops"), tlkit("ops", "--json")
    assert text.returncode == document.returncode == 0
    answer = json.loads(document.stdout)
    rows = {line.split()[0]: line.split() for line in text.stdout.splitlines() if line.strip()}
    for entry in answer["ops"]:
        assert rows[entry["name"]][1] == entry["family"]
        assert rows[entry["name"]][2] == entry["opsets"][0]
    assert f"{len(answer['ops'])} operations" in text.stdout
    assert [entry["name"] for entry in answer["not_covered"]] == ["custom_layer"]
    assert "not covered: custom_layer" in text.stdout


def test_a_pattern_selects_by_name_or_family():
    by_name = json.loads(tlkit("ops", "reduce_arg*", "--json").stdout)
    by_family = json.loads(tlkit("ops", "recurrent", "--json").stdout)
    assert [entry["name"] for entry in by_name["ops"]] == ["reduce_argmax", "reduce_argmin"]
    assert by_name["ops"][0]["opsets"] == ["iOS15", "iOS17"]
    assert [entry["name"] for entry in by_family["ops"]] == ["gru", "lstm", "rnn"]
    assert "x" in by_family["ops"][0]["inputs"]
    assert "output_sequence?" in by_family["ops"][0]["inputs"]


def test_a_pattern_that_fits_nothing_is_a_usage_error():
    failed = tlkit("ops", "frobnicate")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "frobnicate" in failed.stderr
