"""The one error that a person can mend."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, a setting, an option.

    The message says what was wanted, what came and what to do. The command line prints it without a
    traceback and exits with code 2.
    """
