"""The program: imports take seconds, and Ctrl-C during them is answered in a sentence, too."""

import sys
import threading

PATIENCE = 3.0  # seconds of imports after which it is said that they go on


def main() -> None:
    """Run the command line."""
    said = "starting: torch and transformers are being imported"
    late = threading.Timer(PATIENCE, print, [said], {"file": sys.stderr})
    late.daemon = True
    late.start()
    try:
        from hanse import cli
    except KeyboardInterrupt:
        print("hanse: stopped before anything was begun.", file=sys.stderr)
        sys.exit(2)
    finally:
        late.cancel()
    cli.main()


if __name__ == "__main__":
    main()
