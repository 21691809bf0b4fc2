"""The errors that users meet. Each is one line that names the file or option and the remedy."""


class NhzooError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 2


class InputError(NhzooError):
    """A file, name or option that cannot be used (exit code 2)."""


class Stopped(Exception):
    """A wait ended because the run was asked to stop; what had been waited for is not lost."""


class CheckFailed(NhzooError):
    """The input was usable and the check said no: a score not reproduced (exit code 1)."""

    exit_code = 1


class Notice(UserWarning):
    """Something that stops nothing and is better known; the command line shows it as one line."""
