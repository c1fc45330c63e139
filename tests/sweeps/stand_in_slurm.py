"""A cluster of one machine: stands in for sbatch, srun, squeue, sacct, scontrol and scancel, and breaks on request.

``install`` writes the commands to a folder for PATH. Jobs are real processes in the background; a job's record is a
JSON file. ``Cluster`` does to them what a cluster does: the time is up, a node fails.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel")


def install(folder: Path) -> Path:
    """Write the commands below ``folder`` and return the folder to put on PATH."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in COMMANDS:
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "{folder}" "$@"\n')
        script.chmod(0o755)
    return bin_folder


class Cluster:
    """The jobs of a stand-in cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keys(self) -> list[str]:
        return [file.stem for file in sorted((self.folder / "jobs").glob("*.json"))]

    def read(self, key: str) -> dict[str, Any]:
        return json.loads((self.folder / "jobs" / f"{key}.json").read_text())

    def update(self, key: str, **values: Any) -> None:
        file = self.folder / "jobs" / f"{key}.json"
        content = self.read(key) if file.exists() else {}
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({**content, **values}))
        beside.replace(file)

    def tasks(self, key: str) -> list[int]:
        """Return the processes that srun has started for a job."""
        file = self.folder / "jobs" / f"{key}.tasks"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the tasks, as Slurm does before the time is up."""
        for pid in self.tasks(key):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, key: str, state: str, requeue: bool = False) -> None:
        """End a job at once: NODE_FAIL, TIMEOUT, CANCELLED."""
        self.update(key, verdict=state, requeue=requeue)
        with suppress(ProcessLookupError):
            os.killpg(self.read(key)["group"], signal.SIGKILL)
        for pid in self.tasks(key):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def sbatch(cluster: Cluster, words: list[str]) -> None:
    script = Path(words[-1]).read_text()
    flags = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    number = 1000 + 100 * len({key.partition("_")[0] for key in cluster.keys()})
    saved = cluster.folder / "jobs" / f"{number}.sh"
    saved.write_text(script)
    count = int(flags["array"].partition("%")[0].partition("-")[2]) + 1 if "array" in flags else 0
    for index in range(count or 1):
        key = f"{number}_{index}" if count else str(number)
        cluster.update(key, script=str(saved), state="PENDING", name=flags["job-name"].strip("'"), restarts=0,
                       raw=number + index, array=[number, index] if count else None,
                       tasks=int(flags.get("ntasks-per-node", 1)), nodes=int(flags.get("nodes", 1)), flags=flags)
        subprocess.Popen([sys.executable, "-S", __file__, "supervise", str(cluster.folder), key], cwd=Path.cwd(),
                         start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def supervise(cluster: Cluster, words: list[str]) -> None:
    """Run a job until it ends and is not put into the queue again."""
    key = words[0]
    while True:
        job = cluster.read(key)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {"SLURM_JOB_ID": str(job["raw"]), "SLURM_NTASKS": str(job["tasks"] * job["nodes"]),
                        "SLURM_JOB_NUM_NODES": str(job["nodes"]), "SLURM_NNODES": str(job["nodes"]),
                        "SLURM_NTASKS_PER_NODE": str(job["tasks"]), "SLURM_JOB_NAME": job["name"],
                        "SLURM_RESTART_COUNT": str(job["restarts"]), "STAND_IN_KEY": key}
        if job["array"]:
            environment |= {"SLURM_ARRAY_JOB_ID": str(job["array"][0]), "SLURM_ARRAY_TASK_ID": str(job["array"][1])}
        (cluster.folder / "jobs" / f"{key}.tasks").unlink(missing_ok=True)
        process = subprocess.Popen(["bash", job["script"]], env=environment, start_new_session=True)
        cluster.update(key, state="RUNNING", group=process.pid, verdict=None, requeue=False)
        code = process.wait()
        job = cluster.read(key)
        if not job["requeue"]:
            state = job["verdict"] or ("COMPLETED" if code == 0 else "FAILED")
            cluster.update(key, state=state, code=code)
            return
        cluster.update(key, state="PENDING", restarts=job["restarts"] + 1)


def srun(cluster: Cluster, words: list[str]) -> None:
    """Start a task per rank and wait for all; the worst exit code is the job's."""
    command = words[words.index(sys.executable):]
    pattern = words[words.index("--output") + 1]
    key, tasks = os.environ["STAND_IN_KEY"], int(os.environ["SLURM_NTASKS"])
    parent, _, index = key.partition("_")
    processes = []
    for rank in range(tasks):
        name = pattern.replace("%j", key).replace("%A", parent).replace("%a", index).replace("%t", str(rank))
        environment = {**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        with Path(name).open("a") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
    (cluster.folder / "jobs" / f"{key}.tasks").write_text("\n".join(str(process.pid) for process in processes))
    codes = [process.wait() for process in processes]
    sys.exit(max(abs(code) for code in codes))


def squeue(cluster: Cluster, words: list[str]) -> None:
    options = dict(word.partition("=")[::2] for word in words)
    names = options.get("--name", "").split(",")
    for key in cluster.keys():
        job = cluster.read(key)
        if job["name"] in names and job["state"] in ("PENDING", "RUNNING"):
            print(options["--format"].replace("%i", key).replace("%T", job["state"]))


def sacct(cluster: Cluster, words: list[str]) -> None:
    if (cluster.folder / "no_books").exists():
        sys.exit("Slurm accounting storage is disabled")
    key = next(word.partition("=")[2] for word in words if word.startswith("--jobs="))
    if key in cluster.keys():
        print(f"{key}|{cluster.read(key)['state']}")


def scontrol(cluster: Cluster, words: list[str]) -> None:
    action, key = words
    assert action == "requeue", words
    cluster.update(key, requeue=True)
    time.sleep(0.1)
    cluster.signal(key, signal.SIGTERM)


def scancel(cluster: Cluster, words: list[str]) -> None:
    flags = [word for word in words if word.startswith("--signal=")]
    keys = [word for word in words if not word.startswith("-")]
    for key in keys:
        if flags:
            cluster.signal(key, getattr(signal, f"SIG{flags[0].partition('=')[2].removeprefix('SIG')}"))
        else:
            cluster.kill(key, "CANCELLED by 0")


if __name__ == "__main__":
    globals()[sys.argv[1]](Cluster(Path(sys.argv[2])), sys.argv[3:])
