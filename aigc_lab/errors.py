"""Errors that end a command, and the error of a model that diverged."""


class UsageError(ValueError):
    """Mistake that the user can correct: a typo, an impossible value, a missing file.

    The message is one line that names the place (file, key, value) and the remedy. Commands print it and exit with 2.
    """


class NotFinite(ValueError):
    """Samples, codes or likelihoods of a model are NaN or infinite; a run that produces them has diverged.

    Metrics raise it with the numbers of bad and of all values. It is a `ValueError`, since samples given by a user may
    be wrong in the same way.
    """


class Failure(RuntimeError):
    """Correct request that could not be carried out. Commands print the message and exit with 1."""
