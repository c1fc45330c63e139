"""Where a run came from: command, code, packages, machine."""

import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def git_state(folder: Path = REPOSITORY) -> dict[str, Any]:
    """Return commit and whether files differ from it; empty outside a git checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True,
                              timeout=20).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != folder.resolve():
            return {}  # installed somewhere inside another project's checkout
        commit = git("rev-parse", "HEAD").strip()
        return {"commit": commit, "changed": bool(git("status", "--porcelain", "--untracked-files=no").strip())}
    except (OSError, subprocess.SubprocessError):
        return {}


def git_diff(folder: Path = REPOSITORY) -> str:
    """Return the difference of tracked files to the commit; empty when there is none."""
    if not git_state(folder).get("changed"):
        return ""
    result = subprocess.run(["git", "-C", str(folder), "diff", "HEAD"], capture_output=True, text=True, timeout=60,
                            check=False)
    return result.stdout


def packages() -> dict[str, str]:
    """Return name and version of every installed package."""
    found = {item.metadata["Name"]: item.version for item in distributions() if item.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def hardware() -> dict[str, Any]:
    """Return system, processor, cores, memory in GB and GPUs."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"system": platform.platform(), "python": platform.python_version(), "processor": processor(),
            "cores": os.cpu_count(), "memory_gb": round(memory, 1), "gpus": gpus}


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory_gb() -> float:
    """Return the largest resident memory of this process so far, in GB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
