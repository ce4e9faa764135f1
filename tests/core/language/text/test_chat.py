"""Chat templates: what they render, and what a stranger's cannot do.

Covers tlkit/core/language/text/rendering.py.
"""

from __future__ import annotations

import pytest

from tlkit.core.language.text.chat import conversation, template_of
from tlkit.core.language.text.rendering import rendered
from tlkit.errors import LoadError, UsageError

GEMMA = """{{ bos_token }}{%- for m in messages -%}
{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] | trim + '<end_of_turn>\n' }}
{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""


def test_a_conversation_is_as_transformers_renders_it() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": "user", "content": " Hi {{ 7 }} "}, {"role": "assistant", "content": "Ho"}]
    found = conversation(GEMMA, messages, {"bos_token": "<bos>"}, "x")
    (wanted,), _ = render_jinja_template([messages], chat_template=GEMMA, add_generation_prompt=True, bos_token="<bos>")
    assert found == wanted
    assert found.startswith("<bos><start_of_turn>user\nHi {{ 7 }}<end_of_turn>")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{% for a in range(90000) %}{{ 'x' * 99 }}{% endfor %}",
        "{{ 'x' * (10 ** 10) }}",
        "{{ raise_exception('no') }}",
        "{% if %}",
        "{% include 'x' %}",
    ],
)
def test_a_hostile_template_is_refused_in_one_line(template: str) -> None:
    with pytest.raises(LoadError, match="chat template fails"):
        conversation(template, [], {}, "x")


@pytest.mark.slow
def test_a_template_that_does_not_end_is_ended() -> None:
    loop = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
    with pytest.raises(LoadError, match="chat template fails"):
        conversation(loop, [], {}, "x")


def test_the_sandbox_gives_no_way_out() -> None:
    assert rendered("{{ x.y }}", {"x": {"y": 3}}, 100) == "3"
    with pytest.raises(ValueError, match="more than 4"):
        rendered("{{ 'xxxxx' }}", {}, 4)


def test_a_model_without_a_template_says_so() -> None:
    with pytest.raises(UsageError, match="no chat template"):
        template_of({}, "x")
