"""The program that renders chat templates for `chat_templates`, within limits of time and memory.

Its two arguments are seconds and bytes for one conversation. For each JSON line of input it writes
one of output. The kernel ends this process when its time is over, and refuses it more memory.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

LONGEST = 2**20, 8  # characters of the text: so many, and so many for each of messages and tools


def main(seconds: int, memory: int) -> None:
    """Answer each line of input until its end."""
    _limit(resource.RLIMIT_CORE, 0)
    used = _memory()
    if used is not None:
        _limit(resource.RLIMIT_AS, used + memory)
    for line in sys.stdin:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 1 + seconds)
        print(json.dumps(_answer(line)), flush=True)


def _answer(line: str) -> dict[str, str]:
    request: dict[str, Any] = json.loads(line)
    try:
        text = render_jinja_template([request["messages"]], **request["settings"])[0][0]
    except Exception as error:  # a template may raise anything
        return {"error": f"{error}"[:1000] or type(error).__name__}
    length = len(str(request["messages"])) + len(str(request["settings"].get("tools") or ""))
    most = LONGEST[0] + LONGEST[1] * length
    if len(text) > most:
        return {"error": f"it writes {len(text):,} characters, more than {most:,}"}
    return {"text": text}


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _memory() -> int | None:
    """The bytes of address space of this process; None if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
