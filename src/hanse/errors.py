"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A user's mistake in one sentence: what came, what is allowed, what to do.

    The command line prints the sentence without a traceback and exits with code 2; any other
    exception is a defect of the program and keeps its traceback.
    """
