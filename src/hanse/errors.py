"""The one exception that means: the user can mend this."""

from hanse.texts import cleaned

LONGEST = 8000  # characters of a sentence


class UserError(Exception):
    """A user's mistake in one sentence: what came, what is allowed, what to do.

    The command line prints the sentence without a traceback and exits with `code`; any other
    exception is a defect of the program and keeps its traceback. What the sentence quotes may come
    from anywhere, so it is cleaned here, for terminals, logs and reports alike.
    """

    code = 2

    def __init__(self, sentence: str = "") -> None:
        super().__init__(cleaned(sentence, LONGEST))
