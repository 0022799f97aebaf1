"""Texts from elsewhere: what could deceive a reader is gone wherever they come in."""

import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hanse.deployment.envelopes import (
    ENVELOPE_TEXTS,
    BadEnvelopeError,
    Envelope,
    SiloReply,
)
from hanse.deployment.silo.enforcement import note
from hanse.deployment.sockets import pack as framed
from hanse.errors import LONGEST, MOST, UserError, cleaned
from hanse.federation.messages import Reply, Update, validate_update
from hanse.tensors.named import layout
from hanse.tensors.serialization import MessageError

EVIL = "x\x1b[2Jy\nhanse: all is well\r\x9b1m \u202egnp.\u2066 \ud800 \x07"


def _harmless(text: str) -> bool:
    """Whether each sign shows itself, and nothing else changes, by Unicode's own categories."""
    kinds = [unicodedata.category(sign) for sign in text]
    turned = [unicodedata.bidirectional(sign) for sign in text]
    return not {"Cc", "Cs", "Zl", "Zp"} & {*kinds} and not {*turned} & {
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
    }


def test_every_sign_of_unicode_is_harmless_or_stays_as_it_is() -> None:
    for code in range(sys.maxunicode + 1):
        sign = chr(code)
        shown = cleaned(sign)
        assert _harmless(shown) and (shown == sign) is _harmless(sign), hex(code)
        assert shown.encode("utf-8")


def test_a_text_is_one_line_is_cut_and_stays_so() -> None:
    assert not _harmless(EVIL)
    assert cleaned(EVIL).startswith(r"x\x1b[2Jy hanse: all is well \x9b1m \u202egnp.\u2066 \ud800")
    assert cleaned("a\tb\r\nc\x1b", lines=True) == "a\tb\nc\\x1b"
    for text in (EVIL, "y" * 10**6, "\x1b" * 10**6, "\ud800" * MOST):
        once = cleaned(text)
        assert len(once) <= MOST and _harmless(once) and cleaned(once) == once
    assert cleaned("y" * 10**6).endswith("… (cut; 1,000,000 characters)")
    assert cleaned("y" * 10**6, most=None) == "y" * 10**6


def test_a_reply_brings_no_raw_text() -> None:
    update = Update(numbers={EVIL: 1.0, "loss": 2.0})
    reply = Reply.parse(Reply("a", "train", 1, update, error=EVIL).pack())
    assert _harmless(reply.error) and all(map(_harmless, reply.update.numbers))
    assert reply.update.numbers["loss"] == 2.0
    twice = Update(numbers={"a\n": 1.0, "a ": 2.0})
    with pytest.raises(MessageError, match="two numbers of one name"):
        Reply.parse(Reply("a", "train", 1, twice).pack())


def test_what_is_said_of_a_bad_reply_is_no_raw_text() -> None:
    long = {EVIL + "z" * 10**6: torch.zeros(1)}
    with pytest.raises(MessageError) as said:
        validate_update(Update(long), layout({"a": torch.zeros(1)}))
    assert _harmless(str(said.value)) and len(str(said.value)) <= MOST


@pytest.mark.parametrize("field", ["name", "session", "error"])
def test_an_answer_brings_no_raw_text(field: str) -> None:
    head = {"name": "a", "session": "s", "error": "", field: EVIL + "y" * 10**5}
    answer = SiloReply.parse(framed(head, b""))
    assert _harmless(getattr(answer, field)) and len(getattr(answer, field)) <= MOST


@pytest.mark.parametrize("field", ["version", "run"])
def test_what_is_said_of_an_envelope_is_no_raw_text(field: str) -> None:
    envelope = Envelope("run1", "rounds: 1")
    head = {name: getattr(envelope, name) for name in ENVELOPE_TEXTS}
    head |= {"version": EVIL, field: EVIL}
    if field == "run":
        for name in (EVIL, "r" * 65, "r" * 10**6):
            with pytest.raises(BadEnvelopeError, match="at most 64 letters") as said:
                Envelope.parse(framed({**head, "run": name}, b""))
            assert _harmless(str(said.value)) and len(str(said.value)) < 300
    else:
        version = Envelope.parse(framed(head, b"")).version
        assert _harmless(str(BadEnvelopeError(f"the server has hanse {version}")))


def test_a_mistake_is_told_in_one_line(
    hanse: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _harmless(str(UserError(EVIL))) and len(str(UserError("y" * 10**6))) == LONGEST
    done = hanse("run", "x\x1b[2J\nhanse: done\u202e.yaml")
    err = done.err  # type: ignore[attr-defined]
    assert err.count("\n") == 1 and _harmless(err.rstrip("\n"))


def test_a_silos_log_takes_every_reason(tmp_path: Path) -> None:
    note(tmp_path, "run", "refused", str(UserError(EVIL)))
    [line] = (tmp_path / "refusals.jsonl").read_text(encoding="utf-8").splitlines()
    assert _harmless(json.loads(line)["reason"])
