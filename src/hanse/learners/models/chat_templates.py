"""A model's chat template, rendered in a process that has little time and memory.

A chat template is a program that comes with a model. Jinja's sandbox keeps it from files, but does
not bound its loops, nor what one operation takes. So it runs in a process of its own
(`template_process`), which the kernel ends.
"""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from hanse.errors import UserError
from hanse.learners.models import template_process

# -P: nothing is imported from the folder that the program lies in.
PROGRAM = (sys.executable, "-P", str(template_process.__file__))


@dataclass
class Renderer:
    """The one process, started when it is needed first, and again after one that was ended.

    seconds: of the process's time for one conversation. memory: bytes for one.
    """

    seconds: int = 10
    memory: int = 512 * 2**20
    _process: subprocess.Popen[bytes] | None = None
    _lock: Lock = field(default_factory=Lock)

    def render(self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
        """The text that a template writes; raises ValueError with what is wrong."""
        line = json.dumps({"messages": messages, "settings": settings}, default=str)
        with self._lock:
            try:
                answer = self._ask(line.encode() + b"\n")
            except BaseException:  # what it says now would be taken for its next answer
                self.close()
                raise
            if not answer:
                self.close()
                raise ValueError(
                    f"it takes more than {self.seconds} s or {self.memory // 2**20} MiB of memory"
                )
        found = json.loads(answer)
        if "error" in found:
            raise ValueError(found["error"])
        return str(found["text"])

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, line: bytes) -> bytes:
        process = self._process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        return process.stdout.readline()

    def _started(self) -> subprocess.Popen[bytes]:
        words = [*PROGRAM, str(self.seconds), str(self.memory)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            return subprocess.Popen(  # noqa: S603 (our own program)
                words, stdin=pipe, stdout=pipe, stderr=nowhere, start_new_session=True
            )
        except OSError as error:
            raise UserError(
                f"no process for chat templates can be started ({error.strerror}); end other "
                "programs, and run the same command again."
            ) from None


_renderers = [Renderer()]  # the last one is this process's; a fork leaves alone that of its parent
atexit.register(lambda: _renderers[-1].close())
os.register_at_fork(after_in_child=lambda: _renderers.append(Renderer()))


def bound(tokenizer: Any) -> Any:
    """A tokenizer whose own chat template is rendered within limits."""
    usual = tokenizer.apply_chat_template

    def apply(messages: Sequence[Mapping[str, str]], **options: Any) -> Any:
        if options.get("chat_template") is not None or options.get("tokenize", True):
            return usual(messages, **options)
        template = tokenizer.get_chat_template(None)
        settings = {**tokenizer.special_tokens_map, "chat_template": template}
        settings["add_generation_prompt"] = options.get("add_generation_prompt", False)
        return _renderers[-1].render(messages, settings)

    tokenizer.apply_chat_template = apply
    return tokenizer
