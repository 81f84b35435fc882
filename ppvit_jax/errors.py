"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """Something that the user can put right; the message is one line that says what is wrong and what to do.

    The entry points print the message without a traceback and exit with status 1.
    """
