"""The exception for errors that the user can correct."""


class UserError(Exception):
    """An error that the user can correct: the message says what is wrong, the value given, what to type.

    The commands print the message without a traceback and exit with code 1.
    """
