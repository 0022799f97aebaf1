"""Work done by a user to whom the system can refuse something; root is refused nothing."""

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def home() -> Iterator[Path]:
    """A folder that such a user can reach; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path, *_ in os.walk(folder):
            os.chmod(path, 0o755)
        shutil.rmtree(folder)


def give(folder: Path) -> None:
    """Let a folder and all in it belong to that user."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def as_nobody(work: Callable[[], object]) -> str:
    """What a fork of this process says of what `work` returns, or of the error that it raises."""
    source, target = os.pipe()
    if (child := os.fork()) == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            said = str(work())
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        os.write(target, said.encode()[:4000])
        os._exit(0)
    os.close(target)
    with open(source, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said
