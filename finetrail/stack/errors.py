"""What goes wrong around a stack, in words for the one who started it."""


class StackError(Exception):
    """The stack cannot start or go on; ``hint`` says what would help.

    Raised before anything was started, or after everything that was started has ended again.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint
