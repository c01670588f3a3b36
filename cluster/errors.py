"""The one error tree. Every error is one line: what is wrong, where, and the mend.

Errors cross process borders on Ray, so each one survives a pickle round trip.
"""

from __future__ import annotations


class RehoneError(Exception):
    """Anything rehone raises on purpose. `exit_code` is what the command line answers with."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.mend = what, where, mend

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} ({self.mend})" if self.mend else head

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.mend)


def _rebuild(kind: type[RehoneError], what: str, where: str, mend: str) -> RehoneError:
    return kind(what, where=where, mend=mend)


class UserError(RehoneError, ValueError):
    """The user's mistake: found before anything started, so nothing was lost."""

    exit_code = 2


class SpecError(UserError):
    """The spec does not say something that can be run."""


class DataError(UserError):
    """The data is not what the spec says it is."""


class NotFoundError(UserError):
    """A model, version, dataset or run that was asked for does not exist."""


class ClusterError(RehoneError, RuntimeError):
    """A fault of the cluster: says what was saved and how to go on."""


class TrainingError(ClusterError):
    """A training run or sweep ended without a usable result."""


class GateRefusedError(RehoneError):
    """The gate judged the challenger and kept the champion."""

    exit_code = 3


class JobFailedError(ClusterError):
    """A job that was followed to its end and failed; `exit_code` is what the verb answered there."""

    def __init__(self, what: str, *, where: str = "", mend: str = "", exit_code: int = 1) -> None:
        super().__init__(what, where=where, mend=mend)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_job, (self.what, self.where, self.mend, self.exit_code)


def _rebuild_job(what: str, where: str, mend: str, exit_code: int) -> JobFailedError:
    return JobFailedError(what, where=where, mend=mend, exit_code=exit_code)


class DetachedError(RehoneError):
    """The user stopped following a job that goes on, so its outcome is not known here."""

    exit_code = 130  # as a shell has it for a command that Ctrl-C ended
