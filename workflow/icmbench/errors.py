"""The exceptions that users see as a single line."""


class UserError(Exception):
    """Something the user can mend: a setting, a file, a missing program.

    The message names the key or file, the bad value, what is allowed and what to do.
    The command line prints it without a traceback and exits with status 1.
    """


class DamagedFile(UserError, ValueError):
    """A file that is not what was written, or that its reader cannot read."""


class CannotWrite(UserError):
    """No room, no permission, or a file system that takes nothing: other files fare no better."""
