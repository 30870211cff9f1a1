"""Errors that a user can cause, each with the exit code a command ends with."""


class TrimodalError(Exception):
    """A mistake in what the user gave; its message is one sentence that names what and where."""

    exit_code = 1


class ConfigError(TrimodalError):
    """A configuration or an option that cannot be, or a run that another process holds."""

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


class PathError(StorageError):
    """A path that was named and leads nowhere, to something else, or to what is not written over.

    It is the user's to mend, while another `StorageError` may be gone when the disk is mended.
    """

    exit_code = 64


class NumericError(TrimodalError):
    """A loss or gradient that is not finite."""

    exit_code = 76


class StoppedError(TrimodalError):
    """A run that ended early through no fault in what it was given; the same command resumes it."""

    exit_code = 75
