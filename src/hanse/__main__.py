"""The program: Ctrl-C is answered in a sentence from the first moment on."""

import gc
import sys


def main() -> None:
    """Run the command line."""
    try:
        from hanse.observability.processor import shorten_waits

        shorten_waits()  # before torch is imported
        from hanse.cli import main as cli
    except KeyboardInterrupt:
        print("hanse: stopped before anything was begun.", file=sys.stderr)
        sys.exit(130)
    try:
        cli.main()
    finally:
        # The interpreter's last collection would visit all objects of torch and PEFT, for a second.
        gc.freeze()


if __name__ == "__main__":
    main()
