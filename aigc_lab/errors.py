"""The two ways a command ends badly through no fault of the program."""


class UsageError(ValueError):
    """Something the user can put right: a typo, an impossible value, a missing file.

    The message is one line that names the place (file, key, value) and the remedy. Commands print it and exit with 2.
    """


class Failure(RuntimeError):
    """Work that was asked for correctly and could not be done. Commands print the message and exit with 1."""
