"""The errors that a user can cause or fix.

RootnoteError
"""


class RootnoteError(Exception):
    """The work could not be done; the message is one plain sentence that names the file and the fix."""
