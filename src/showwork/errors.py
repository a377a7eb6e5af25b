"""The one exception for a mistake that the user can mend."""


class UserError(Exception):
    """Names the thing, the place and the way out; shown without a traceback, exit code 2."""
