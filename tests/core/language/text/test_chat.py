"""Chat templates: what they render, and what a stranger's cannot do.

Covers tlkit/core/language/text/rendering.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from tlkit.core.language.text.chat import conversation, template_of
from tlkit.core.language.text.rendering import rendered
from tlkit.errors import LoadError, UsageError

GEMMA = """{{ bos_token }}{%- for m in messages -%}
{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] | trim + '<end_of_turn>\n' }}
{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""


# What well-known templates do, in words of these tests: tools that may be none, turns that must alternate, what a model
# thought cut out of turns before the last question, loops backwards, marks of what is trained, JSON.
TOOLS = """{{ bos_token }}{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}
{%- for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns!') }}{% endif %}
{%- if m['role'] == 'user' and loop.last and tools is not none %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}
{%- if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] ~ eos_token }}{% endif %}
{%- endfor %}"""
THOUGHT = """{%- set ns = namespace(asked=0, found=false) %}
{%- for m in messages[::-1] %}{% if not ns.found and m.role == 'user' and m.content is string %}
{%- set ns.asked = loop.revindex0 %}{% set ns.found = true %}{% endif %}{% endfor %}
{%- if not (messages and messages[0].role == 'system') %}<|im_start|>system
You help.<|im_end|>
{% endif %}
{%- for m in messages %}{% set said = m.content %}
    {%- if m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1].lstrip('\n') %}{% endif %}
    {%- if m.tool_calls is defined and m.tool_calls %}{% continue %}{% endif %}
{{ '<|im_start|>' + m.role }}
{%- if loop.index0 > ns.asked %}!{% endif %}

{% generation %}{{ said }}{% endgeneration %}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>{% endif %}{% endif %}"""
HEADERS = """{{- bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}{% set system = '' %}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content']|trim %}{% set messages = messages[1:] %}
{%- endif %}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + date_string + '\n\n' }}
{%- if tools is not none %}{{ dict(a=tools) | tojson(indent=4) }}{% endif %}{{ system + '<|eot_id|>' }}
{%- for m in messages %}
{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}{{ {'z': messages | length, 'a': [2.5, none, 'ü<']} | tojson(separators=(',', ':'), sort_keys=true) }}"""
HI = {"role": "user", "content": " Hi {{ 7 }} "}
TALK = [HI, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHo"}, {"role": "user", "content": "And ü?\n"}]
SYSTEM = {"role": "system", "content": " Be brief. "}


@pytest.mark.parametrize("template", [GEMMA, TOOLS, THOUGHT, HEADERS])
def test_a_conversation_is_as_transformers_renders_it(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    specials = {"bos_token": "<bos>", "eos_token": "</s>"}
    for messages in ([HI], TALK, [SYSTEM, *TALK]):
        said: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, **specials}
        (wanted,), _ = render_jinja_template([messages], **said)
        assert conversation(template, messages, specials, "x") == wanted
    assert "Hi {{ 7 }}" in wanted


def test_a_template_s_own_no_is_told() -> None:
    with pytest.raises(LoadError, match="turns!"):
        conversation(TOOLS, [HI, HI], {}, "x")


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
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns._Namespace__attrs = 1 %}",
        "{{ dict.__self__ }}{{ dict.mro() }}",
        "{% generation %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages | tojson(indent=10 ** 9) }}{{ 10 ** 10 ** 10 }}",
        "{{ 'a' | center(10 ** 9) }}",
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
