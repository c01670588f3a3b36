"""A sweep by synchronous successive halving: one stage a rung, in which survivors go on from their own checkpoint.

Everything is decided by the trials' records, which are written as they end: a sweep that was interrupted, or is asked
for more points, finds what is done and goes on. A checkpoint is kept as long as its trial may still be among those that
go on; without one a trial begins anew and comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.console import meter, say
from jobs.spec import Spec

from . import rungs
from .paused import Paused
from .points import Points, wanted
from .record import FAILED, Kept, Trial
from .rungs import Rung
from .stage import Ended, Point, Stage


def sweep(spec: Spec, kept: Kept, known: Iterable[Trial], train: Callable[[Stage, Ended], None]) -> tuple[Trial, ...]:
    """All trials as they ended. `train` runs a stage and raises when not all of it was run."""
    halving = _Halving(spec, kept, tuple(known), train)
    halving.climb()
    return tuple(halving.trials.values())


class _Halving:
    def __init__(self, spec: Spec, kept: Kept, known: tuple[Trial, ...], train: Callable[[Stage, Ended], None]) -> None:
        self.trials = {trial.id: trial for trial in known}
        self._points, self._kept, self._paused, self._train = Points(spec, known), kept, Paused.beside(kept), train
        self._missing = max(0, wanted(spec) - len(known))
        self._ladder = rungs.ladder(spec.sweep, len(known) + self._missing)

    def climb(self) -> None:
        total = self._left()
        with meter("sweep, epochs", total) as bar:
            for number, rung in enumerate(self._ladder):
                self._stage(number, rung, lambda note: bar.update(total - self._left(), note))
            bar.update(total)
        self._paused.clear()

    def _left(self) -> int:
        return rungs.left(self._ladder, tuple(self.trials.values()))

    def _stage(self, number: int, rung: Rung, moved: Callable[[str], None]) -> None:
        """Bring all that are in a rung to its end."""
        trials, new = list(self.trials.values()), 0 if number else self._missing
        entered = rungs.best(trials, self._ladder[number - 1], rung.trials) if number else trials
        behind = rungs.behind(entered, rung)
        if not behind and not new:
            return
        if number:
            able = sum(trial.status != FAILED for trial in entered)
            say(f"{able} of {self._ladder[number - 1].trials} trials go on to epoch {rung.epochs}")
        last = number == len(self._ladder) - 1
        after = 0 if last else self._ladder[number + 1].trials
        held = rungs.best(entered, rung, after)

        def ended(trial: Trial) -> None:
            nonlocal held
            before = self.trials.get(trial.id)
            self.trials[trial.id] = trial
            self._kept.write(trial)
            if before is None:
                self._points.told(trial)
            else:
                self._paused.remove(before)
            rivals = [*held, trial]
            held = rungs.best(rivals, rung, after)
            for lost in rivals:
                if not last and lost not in held:
                    self._paused.remove(lost)
            losses = [loss for one in self.trials.values() if (loss := one.validation_loss) is not None]
            moved(trial.error or f"epoch {rung.epochs}, best validation loss {min(losses):.3f}")

        known = {trial.id: trial for trial in behind}
        next_ = self._next(behind, new)
        self._train(Stage(rung.epochs, len(behind) + new, next_, known, self._paused, keeps=not last), ended)

    def _next(self, behind: Iterable[Trial], new: int) -> Callable[[], Point | None]:
        """The points of those that are behind, then new ones."""
        waiting = iter(behind)

        def point() -> Point | None:
            trial = next(waiting, None)
            if trial is not None:
                return trial.values
            return self._points.next() if new else None

        return point
