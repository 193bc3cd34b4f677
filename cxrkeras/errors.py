"""The one error that a user can fix."""


class InputError(ValueError):
    """Raised for invalid input: a file, a setting or an option.

    The message states what was expected, what was found and what to do. `option` is the setting to change, if there is
    one, which the command line spells as its own option. The command line prints the message without a traceback and
    exits with code 2.
    """

    def __init__(self, message: str, *, option: str | None = None):
        super().__init__(message)
        self.option = option
