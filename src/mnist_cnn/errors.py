"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend: what is wrong, the value given, what to type instead.

    The commands print its message without a traceback and exit with code 1.
    """
