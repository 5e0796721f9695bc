"""What is wrong with a source of rows, or with what is asked of it."""


class SourceError(ValueError):
    """A source of rows cannot be used so, or did not give the rows that it was asked for."""
