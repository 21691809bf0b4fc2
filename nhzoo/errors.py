"""The errors that users meet. Each is one line that names the file or option and the remedy."""

import errno

_REMEDIES = {
    errno.ENOSPC: "make room there, or name another folder",
    errno.EDQUOT: "make room there, or name another folder",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "change its permissions, or name another",
    errno.EPERM: "change its permissions, or name another",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EFBIG: "raise the limit of this shell (ulimit -f)",
    errno.EMFILE: "raise the limit of this shell (ulimit -n)",
    errno.ENOMEM: "give fewer workers, or a smaller batch",
    errno.EIO: "check the disk",
}


def refusal(error: OSError) -> str:
    """What the system refused, in its words, and the remedy where its number tells one."""
    said = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{said}; {remedy}" if remedy else said


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
