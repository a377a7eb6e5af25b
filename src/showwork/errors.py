"""The exception for a mistake that the user can fix."""


class UserError(Exception):
    """Its message says what is wrong, where, and how to fix it; shown without a traceback, exit code 2."""
