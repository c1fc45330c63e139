"""A sweep of 64 short trainings of which one is killed: our launcher against Hydra's basic, joblib and submitit.

    pip install --no-deps --target /tmp/launchers hydra-joblib-launcher hydra-submitit-launcher joblib
    python -m tests.benchmarks.sweeps --launchers /tmp/launchers

The two plugins are for this comparison only and are kept out of the project's environment; without ``--launchers``
they are skipped. segexp itself refuses launchers that are not its own, so Hydra's run in an application of ten lines
(``tests.benchmarks.hydra_app``) whose job is what ``segexp train`` does, with the same configuration. Job 13 kills
itself with SIGKILL, as the system does to a process that takes too much memory. Counted is what is done when the
command has ended. All of them get as many jobs at a time as there are cores; submitit's local mode starts all at once
by itself, 0.6 GB each, so it gets batches (``--batch``, twice the cores) on a machine that would not stand it; Hydra
then ends the sweep with the batch in which a job died.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from segexp.cli import main as segexp
from segexp.runs import list_runs
from tests.sweeps.conftest import REPOSITORY, SHORT
from tests.sweeps.faults import fault_words

KILLED = 13


def train(name: str, words: list[str], jobs: int, phantom: Path, launchers: str) -> None:
    """Run one sweep in a process of its own and print what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        root, outputs = phantom / "phantoms" / "ukbiobank_smoke", Path(folder)
        line = [*SHORT, f"data.root={root}/bulk", f"data.derived_root={root}/derived", f"data.truth_root={root}/truth",
                f"data.cache={phantom}/cache", f"paths.outputs={outputs}", f"seed=range(1,{jobs + 1})",
                *fault_words(outputs, "kill", only=KILLED)[: None if name == "ours" else 1], *words]
        path = os.pathsep.join(filter(None, (launchers, os.environ.get("PYTHONPATH"))))
        module = "segexp" if name == "ours" else "tests.benchmarks.hydra_app"
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", module, *(["train"] if name == "ours" else []), "-m", *line],
                              env={**os.environ, "PYTHONPATH": path}, cwd=REPOSITORY, capture_output=True, text=True,
                              check=False)
        seconds = time.perf_counter() - started
        finished = sum(run.status == "done" for run in list_runs(outputs))
        named = f"seed={KILLED}: failed" in done.stderr
        print(f"{name:<16}{finished:>4} of {jobs} done, exit code {done.returncode:>3}, "
              f"{'names' if named else 'does not name'} the dead job, {seconds:7.1f} s, "
              f"{60 * finished / seconds:6.1f} jobs per minute", flush=True)
        if not finished:
            print(done.stdout[-2000:], done.stderr[-2000:])


def main() -> None:
    """Train the same jobs with every launcher that there is."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--launchers", default="", help="the folder with Hydra's other launchers")
    parser.add_argument("--batch", type=int, default=2 * cores, help="jobs that submitit gets at a time")
    parser.add_argument("--only", default="", help="some of ours,basic,joblib,submitit_local")
    options = parser.parse_args()
    sides = {"ours": [], "basic": ["hydra/sweeper=basic", "hydra/launcher=basic"]}
    if options.launchers:
        sides |= {"joblib": ["hydra/sweeper=basic", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}"],
                  "submitit_local": ["hydra/sweeper=basic", "hydra/launcher=submitit_local",
                                     f"hydra.sweeper.max_batch_size={options.batch}", "hydra.launcher.timeout_min=60"]}
    with tempfile.TemporaryDirectory() as folder:
        phantom = Path(folder)
        assert segexp(["phantom", "data=ukbiobank", "scale=smoke", f"paths.outputs={phantom}"]) == 0
        print(f"cores {cores}, load {os.getloadavg()[0]:.2f}, {options.jobs} jobs")
        for name, words in sides.items():
            if not options.only or name in options.only.split(","):
                train(name, words, options.jobs, phantom, options.launchers)


if __name__ == "__main__":
    main()
