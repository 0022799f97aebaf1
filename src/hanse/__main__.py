"""The program: Ctrl-C is answered in a sentence from the first moment on."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from hanse.cli import main as cli
    except KeyboardInterrupt:
        print("hanse: stopped before anything was begun.", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
