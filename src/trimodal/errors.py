"""Errors that a user can cause, each with the exit code a command ends with."""


class TrimodalError(Exception):
    """A mistake in what the user gave; its message is one sentence that names what and where."""

    exit_code = 1


class ConfigError(TrimodalError):
    """A configuration that cannot be run, or a run directory that another process holds."""

    exit_code = 64


class DataError(TrimodalError):
    """A manifest row or a medium that cannot be used; `code` names the kind for programs."""

    exit_code = 65

    def __init__(self, message: str, *, code: str = "invalid_data") -> None:
        super().__init__(message)
        self.code = code


class StorageError(TrimodalError):
    """A file or folder that cannot be read or written: checkpoints, models, reports."""

    exit_code = 74


class NumericError(TrimodalError):
    """A loss or gradient that is not finite."""

    exit_code = 76


class StoppedError(TrimodalError):
    """A run that ended early through no fault in what it was given; the same command resumes it."""

    exit_code = 75
