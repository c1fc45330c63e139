"""Errors meant for the user: each message names the file or key, what is wrong, what was expected and what to do.

The command line prints such an error without a traceback and exits with its ``exit_code``.
"""


class SegexpError(Exception):
    """Base of every error that the user can act on."""

    exit_code = 1


class ConfigError(SegexpError):
    """A key, group, value or command that does not exist or does not fit the rest."""

    exit_code = 2


class DataError(SegexpError):
    """A file or folder of a data set that cannot be used as it is."""

    exit_code = 3


class PartialError(SegexpError):
    """Some of the work was done and some failed; the message names what failed."""

    exit_code = 4


class BusyError(SegexpError):
    """Another process is writing this run."""

    exit_code = 5


class Preempted(SegexpError):
    """Asked to stop by SIGTERM or SIGUSR2; everything was saved and the same command goes on."""

    exit_code = 143
