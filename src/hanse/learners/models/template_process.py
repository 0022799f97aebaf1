"""The program that renders chat templates for `chat_templates`, within limits of time and memory.

Its two arguments are seconds and bytes for one conversation. One JSON line comes in for each, and
one goes out. The kernel ends this process when its time is over, and refuses it more memory.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

LONGEST = 2**20, 8  # characters that a template may write, and so many times those of the messages


def main(seconds: int, memory: int) -> None:
    """Answer line by line until there are no more."""
    _limit(resource.RLIMIT_CORE, 0)
    held = _memory()
    if held is not None:
        _limit(resource.RLIMIT_AS, held + memory)
    for line in sys.stdin:
        own = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(own.ru_utime + own.ru_stime) + 1 + seconds)
        print(json.dumps(_answer(line)), flush=True)


def _answer(line: str) -> dict[str, str]:
    asked: dict[str, Any] = json.loads(line)
    try:
        text = render_jinja_template([asked["messages"]], **asked["settings"])[0][0]
    except Exception as error:  # a template may raise anything
        return {"error": f"{error}"[:1000] or type(error).__name__}
    said = sum(len(str(message["content"])) for message in asked["messages"])
    most = LONGEST[0] + LONGEST[1] * said
    if len(text) > most:
        return {"error": f"it writes {len(text):,} characters, more than {most:,}"}
    return {"text": text}


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _memory() -> int | None:
    """The bytes of addresses that this process has; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
