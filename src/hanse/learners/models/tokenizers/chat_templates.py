"""Chat templates of models, rendered in a process with limits of time and memory.

A chat template is a program that comes with a model. Jinja's sandbox keeps it from files, but
bounds neither its loops nor the memory of one operation. It therefore runs in a process of its own
(`template_process`), whose limits the kernel enforces.
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
from hanse.learners.models.tokenizers import template_process

# -P: Python imports nothing from the program's own folder.
PROGRAM = (sys.executable, "-P", str(template_process.__file__))


@dataclass
class Renderer:
    """The rendering process, started when it is first needed, and again after it was ended.

    seconds: CPU time for one conversation. memory: bytes for one conversation.
    """

    seconds: int = 10
    memory: int = 512 * 2**20
    _process: subprocess.Popen[bytes] | None = None
    _lock: Lock = field(default_factory=Lock)

    def render(self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
        """The text that a template writes; raises ValueError with the template's error."""
        line = json.dumps({"messages": messages, "settings": settings}, default=str)
        with self._lock:
            try:
                answer = self._ask(line.encode() + b"\n")
            except BaseException:  # a late answer would be taken for the next one
                self.close()
                raise
            if not answer:
                self.close()
                raise ValueError(
                    f"it takes more than {self.seconds} s or {self.memory // 2**20} MiB of memory"
                )
        reply = json.loads(answer)
        if "error" in reply:
            raise ValueError(reply["error"])
        return str(reply["text"])

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
        command = [*PROGRAM, str(self.seconds), str(self.memory)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            return subprocess.Popen(  # noqa: S603 (our own program)
                command, stdin=pipe, stdout=pipe, stderr=null, start_new_session=True
            )
        except OSError as error:
            raise UserError(
                f"no process for chat templates can be started ({error.strerror}); end other "
                "programs, and run the same command again."
            ) from None


_renderers = [Renderer()]  # the last one is this process's own; a fork adds another
atexit.register(lambda: _renderers[-1].close())
os.register_at_fork(after_in_child=lambda: _renderers.append(Renderer()))


def bound(tokenizer: Any) -> Any:
    """Let a tokenizer render its chat template within limits, and return it."""
    unbounded = tokenizer.apply_chat_template

    def apply(messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        if options.get("chat_template") is not None or options.get("tokenize", True):
            return unbounded(messages, **options)
        tools = options.get("tools")
        template = tokenizer.get_chat_template(None, tools)
        settings = {**tokenizer.special_tokens_map, "chat_template": template, "tools": tools}
        settings["add_generation_prompt"] = options.get("add_generation_prompt", False)
        return _renderers[-1].render(messages, settings)

    tokenizer.apply_chat_template = apply
    return tokenizer
