"""The loop of a search: ask for trials, train each as a job, prune the hopeless, tell what came out."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from segexp.console import say
from segexp.errors import ConfigError, Preempted, SegexpError
from segexp.search.curves import final, names, read_values
from segexp.search.report import told_end, write_table
from segexp.search.space import Parameter
from segexp.search.study import StudyFolder, Trials, Worker
from segexp.sweeps.controller import Controller, Outcome
from segexp.sweeps.drive import SECONDS_TO_SAVE, make_executor, terminated
from segexp.sweeps.job import Job, make_job

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_CURVES = 1.0
SECONDS_BETWEEN_CLAIMS = 5.0
MOST_STARTS = 3  # of a trial that something else than this search stops


class Search:
    """One process's part of a study.

    Args:
        folder: the study.
        definition: what it searches and how.
        fixed: overrides with one value.
        space: what is searched.
        slots: trials at a time.
        launcher: settings of the executor of the jobs.
        config_dirs: more folders with configuration.
        allow: module prefixes of the user that a ``_target_`` may name.
    """

    def __init__(self, folder: StudyFolder, definition: Mapping[str, Any], fixed: Sequence[str],
                 space: Sequence[Parameter], slots: int, launcher: Mapping[str, Any], config_dirs: Sequence[str] = (),
                 allow: Sequence[str] = ()) -> None:
        self.folder, self.definition, self.fixed, self.space = folder, definition, list(fixed), list(space)
        self.slots, self.launcher, self.config_dirs, self.allow = slots, launcher, config_dirs, allow
        self.trials = Trials(folder, definition)
        self.mine: dict[str, list[int]] = {}  # run -> trials that mean it
        self.jobs: dict[str, Job] = {}
        self.starts: dict[str, int] = {}
        self.number = -1
        self.seen: dict[int, int] = {}  # trial -> last step that was reported

    def run(self) -> None:
        """Work on the study until no trial is left to be taken.

        Raises:
            KeyboardInterrupt, Preempted: Ctrl-C or SIGTERM; the jobs have saved, and the same line goes on.
            ConfigError: the runs have no such metric.
        """
        worker, controller = self.employ()
        try:
            with terminated():
                self.work(worker, controller)
        except (KeyboardInterrupt, Preempted):
            say(f"study {self.folder.name}: {len(controller.running)} trials are asked to save and to end; the same "
                "line goes on")
            controller.stop_all(SECONDS_TO_SAVE)
            raise
        except SegexpError:
            controller.stop_all(SECONDS_TO_SAVE)
            raise
        finally:
            controller.__exit__()
            write_table(self.folder, self.trials, self.space)

    def employ(self) -> tuple[Worker, Controller]:
        """Return the first worker that no living process is, and its controller, entered."""
        while True:
            self.number += 1
            worker = self.folder.worker(self.number)
            settings = dict(self.launcher)
            if settings.get("kind", "local") == "local":
                settings["slots"] = self.slots
            controller = Controller(worker, make_executor(worker, settings, self.allow), [])
            controller.__enter__()
            if controller.leading:
                return worker, controller
            controller.__exit__()

    def work(self, worker: Worker, controller: Controller) -> None:
        """Take, start, watch and end trials."""
        claimed = looked = -math.inf
        while True:
            now = time.monotonic()
            if now - claimed > SECONDS_BETWEEN_CLAIMS or not self.mine:
                claimed = now
                self.take_over(worker, controller)
            while sum(map(len, self.mine.values())) < self.slots and self.ask(worker, controller):
                pass
            if not self.mine:
                return
            for outcome in controller.step():
                self.end(outcome, controller)
            if now - looked > SECONDS_BETWEEN_CURVES:
                looked = now
                self.watch(controller)
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def take_over(self, worker: Worker, controller: Controller) -> None:
        """Take the trials of processes that are dead: train them on, or end those that cannot be."""
        with self.folder.claiming():
            known = {number for numbers in self.mine.values() for number in numbers}
            for trial in self.trials.running():
                if trial.number in known:
                    continue
                owner = trial.user_attrs.get("worker")
                if owner is None or set(trial.params) != {one.key for one in self.space}:
                    self.trials.fail(trial.number, "its process died before it had its parameters", void=True)
                elif owner == self.number or not self.folder.alive(owner):
                    if owner != self.number:
                        self.trials.note(trial.number, worker=self.number)
                    say(f"trial {trial.number} was left by a process that died; it goes on")
                    self.begin(trial, worker, controller)

    def ask(self, worker: Worker, controller: Controller) -> bool:
        """Take a new trial where the study wants one more; False where it does not."""
        with self.folder.claiming():
            if len(self.trials.all()) >= int(self.definition["trials"]):
                return False
            trial = self.trials.ask({one.key: one.distribution() for one in self.space}, self.number)
        self.begin(trial, worker, controller)
        return True

    def begin(self, trial: Any, worker: Worker, controller: Controller) -> None:
        """Start the job of a trial, go on with it, or find that its run is done."""
        from segexp.config import compose

        chosen = [one.word(trial.params[one.key]) for one in self.space]
        words = [*self.fixed, *chosen]
        try:
            job = make_job(compose("train", words, self.config_dirs), words, f"trial {trial.number}")
        except ConfigError as error:
            self.trials.fail(trial.number, str(error))
            say(f"trial {trial.number} failed: {error}")
            return
        self.trials.note(trial.number, run=job.run.id, overrides=words)
        self.seen[trial.number] = max(trial.intermediate_values, default=0)
        if trial.user_attrs.get("pruned") and not job.run.held() and not job.done:
            self.trials.prune(trial.number)
            return
        say(f"trial {trial.number}: {' '.join(chosen)}  ({job.run.id})")
        self.mine.setdefault(job.id, []).append(trial.number)
        if job.id not in self.jobs or job.id in controller.outcomes:
            self.jobs[job.id] = job
            worker.add(job)
            controller.add(job)

    def watch(self, controller: Controller) -> None:
        """Read the validations of the trials that run, and stop those that are not worth going on with."""
        for job_id, numbers in self.mine.items():
            values = read_values(self.jobs[job_id].run, self.definition["metric"])
            for number in numbers:
                if self.report(number, values) and job_id in controller.running:
                    self.trials.note(number, pruned=max(values))
                    controller.stop(job_id)

    def report(self, number: int, values: Mapping[int, float]) -> bool:
        """Tell Optuna what is new about a trial; say whether it should be pruned."""
        hopeless = False
        for step, value in values.items():
            if step > self.seen.get(number, 0):
                self.seen[number] = step
                hopeless |= self.trials.report(number, step, value)
        return hopeless

    def end(self, outcome: Outcome, controller: Controller) -> None:
        """Tell Optuna what became of the trials of a job that has ended."""
        job = outcome.job
        numbers = self.mine.get(job.id, [])
        pruned = any(self.trials.get(number).user_attrs.get("pruned") for number in numbers)
        if outcome.status == "stopped" and not pruned:
            self.starts[job.id] = self.starts.get(job.id, 1) + 1
            if self.starts[job.id] <= MOST_STARTS:
                say(f"trial {numbers[0]} was stopped ({outcome.reason}); it goes on")
                controller.add(job)
                return
        self.mine.pop(job.id, None)
        values = read_values(job.run, self.definition["metric"])
        for number in numbers:
            self.report(number, values)
            self.settle(number, outcome, values)
            say(told_end(self.trials.get(number), self.definition["metric"], self.trials.best()))

    def settle(self, number: int, outcome: Outcome, values: Mapping[int, float]) -> None:
        """End one trial.

        Raises:
            ConfigError: the run has validations, but none with the metric that is searched.
        """
        from segexp.config.names import hint

        metric = self.definition["metric"]
        if outcome.status == "done":
            value = final(dict(values), self.definition["value"], self.definition["direction"])
            if not math.isnan(value):
                self.trials.complete(number, value)
                return
            known = names(outcome.job.run)
            if values or not known:
                self.trials.fail(number, f"{metric} is not a number" if values else "it has no validation: validation "
                                 "cases are needed (data.split.validation), and logger=csv")
                return
            self.trials.fail(number, f"it has no {metric}")
            raise ConfigError(f"metric={metric}: the runs have no such metric{hint(metric, known)}")
        if outcome.status == "stopped" and self.trials.get(number).user_attrs.get("pruned"):
            self.trials.prune(number)
            return
        self.trials.fail(number, f"{outcome.status}: {outcome.reason}", log=str(outcome.log or ""))
