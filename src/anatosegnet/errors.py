"""The one exception that stands for a mistake of the user."""


class UserError(Exception):
    """Something the user can put right: shown without a traceback, exit status 2.

    The message names the thing at fault and the way out. Programs in this package print it as
    ``error: <message>``; library users catch it like any exception.
    """
