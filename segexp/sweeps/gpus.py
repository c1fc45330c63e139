"""Which GPUs this machine has, asked without starting CUDA."""

import os
import shutil
import subprocess
from pathlib import Path


def visible_gpus() -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` would list to name every GPU that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi"):
        try:
            done = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True,
                                  text=True, timeout=60, check=True)
            return done.stdout.split()
        except (OSError, subprocess.SubprocessError):
            pass
    return [str(number) for number, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]
