"""The two ways a command ends badly through no fault of the program, and one in which a model does."""


class UsageError(ValueError):
    """Something the user can put right: a typo, an impossible value, a missing file.

    The message is one line that names the place (file, key, value) and the remedy. Commands print it and exit with 2.
    """


class NotFinite(ValueError):
    """Samples, codes or likelihoods of a model that are NaN or infinite: a run that comes to them has diverged. Metrics
    raise it with how many of how many; it is a `ValueError`, for given samples may be wrong so too.
    """


class Failure(RuntimeError):
    """Work that was asked for correctly and could not be done. Commands print the message and exit with 1."""
