"""A model's chat template writes what transformers would, and cannot take a machine with it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hanse.data.formats.row import row
from hanse.data.tokenization.conversations import written
from hanse.errors import UserError
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.models.tokenizers import chat_templates
from hanse.learners.models.tokenizers.chat_templates import Renderer, bound

TALK = [
    {"role": "system", "content": "Sei höflich. 🦀"},
    {"role": "user", "content": "<|end|> {{ 7 * 7 }} \"'\n"},
    {"role": "assistant", "content": "yes\n"},
]
USUAL = [
    "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{{ ns.n }}{{ m | tojson }}{% endfor %}{{ eos_token }}{{ bos_token is defined }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}{{ tools }}{{ documents }}",
    "{{ strftime_now('%Y') }}{% if add_generation_prompt %}ask{% endif %}",
]
# What a hostile template may do; each is one operation, or a loop, that has no end to speak of.
ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ (messages[0].content | length) ** (10 ** 10) }}",
    "{% macro f(n) %}{% for i in range(9) %}{{ f(n - 1) if n }}{% endfor %}"
    "{% endmacro %}{{ f(99) }}",
    # Two nested lists of which every level is compared twice: 2^99 steps within one operation.
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
]
LARGE = [
    "{{ 'a' * 10 ** 10 }}",
    "{{ messages[0].content * 10 ** 9 }}",
    "{{ 'a' | center(10 ** 10) }}",
    "{{ '{:>9999999999}'.format('a') }}",
    "{% set ns = namespace(a='aa') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}"
    "{% endfor %}{{ ns.a | length }}",
    "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Renderer]:
    """One that is soon out of patience."""
    renderer = Renderer(seconds=1)
    monkeypatch.setattr(chat_templates, "_renderers", [renderer])
    yield renderer
    renderer.close()


@pytest.mark.parametrize("ask", [False, True])
def test_it_is_what_transformers_writes(tiny_llama: Path, quick: Renderer, ask: bool) -> None:
    plain = AutoTokenizer.from_pretrained(tiny_llama)
    apart = bound(AutoTokenizer.from_pretrained(tiny_llama))
    for template in USUAL:
        plain.chat_template = apart.chat_template = template
        settings = {"tokenize": False, "add_generation_prompt": ask}
        found = apart.apply_chat_template(TALK, **settings)
        assert found == plain.apply_chat_template(TALK, **settings) and len(found) > 3
    assert quick._process is not None and quick._process.pid != os.getpid()


@pytest.mark.parametrize("template", [*ENDLESS, *LARGE])
def test_a_template_without_end_is_ended(tiny_llama: Path, quick: Renderer, template: str) -> None:
    tokenizer = load(BaseModelSettings(str(tiny_llama), bf16=False)).tokenizer
    talk = row({"messages": TALK}, "talk.jsonl:7")
    usual = written(talk, 3, tokenizer)
    tokenizer.chat_template, own = template, tokenizer.chat_template
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"talk.jsonl:7: this tokenizer's chat template refuses"):
        written(talk, 3, tokenizer)
    assert time.monotonic() - begun < 10
    tokenizer.chat_template = own
    assert written(talk, 3, tokenizer) == usual  # by a new process


def test_a_process_that_was_stopped_is_not_heard_late(
    quick: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"chat_template": "{{ messages[0].content }}"}
    assert quick.render([{"content": "a"}], settings) == "a"

    def interrupted(line: bytes) -> bytes:
        assert quick._process is not None and quick._process.stdin is not None
        quick._process.stdin.write(line)
        quick._process.stdin.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(quick, "_ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quick.render([{"content": "b"}], settings)
    assert quick.render([{"content": "c"}], settings) == "c"
