"""The one exception that users are meant to read."""


class StateRagError(Exception):
    """A problem the user can act on.

    The message names the file, key or flag, what was found, what was expected and the next step. The
    commands print it without a traceback and exit with status 1.
    """
