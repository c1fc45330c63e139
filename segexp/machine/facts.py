"""What the machine says about itself: cores and instructions, memory and limits, folders, packages, devices."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPUINFO, CGROUP = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup")
FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")
"""Instruction sets that decide how fast networks run, as /proc/cpuinfo names them."""
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "monai", "numpy", "tensorboard",
            "setuptools", "nibabel", "wandb", "submitit", "optuna")


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: name, memory in GB (all of it, free), compute capability."""

    name: str
    total_gb: float
    free_gb: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Torch:
    """What importing torch and torchvision gave; ``error`` is why one could not be imported."""

    version: str = ""
    vision: str = ""
    error: str = ""
    cuda: str | None = None
    cudnn: int | None = None
    gpus: tuple[Gpu, ...] = ()
    gpu_error: str = ""
    mps: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Cpu:
    """Name, cores that this process may use, instruction sets, CPU time that a container may use (cores; None: all)."""

    name: str
    cores: int
    flags: frozenset[str]
    quota: float | None = None


@dataclass(frozen=True)
class Memory:
    """GB of memory: of the machine, of it free now, and the limit of the container or job (None: none)."""

    total_gb: float
    available_gb: float
    limit_gb: float | None = None


@dataclass(frozen=True)
class Place:
    """A folder that is written to: GB free, type of its file system, what works there."""

    path: str
    free_gb: float
    kind: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tools:
    """Programs on PATH (name -> path), and settings of the environment that matter here."""

    found: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def packages() -> dict[str, str]:
    """Return name -> version of the packages that matter here and are installed; nothing is imported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load_torch() -> Torch:
    """Import torch and torchvision, and say what they see; whatever happens is an answer."""
    try:
        import torch
    except Exception as error:
        return Torch(error=f"import torch: {type(error).__name__}: {error}")
    error_text = ""
    try:
        import torchvision

        vision = torchvision.__version__
    except Exception as error:
        vision, error_text = "", f"import torchvision: {type(error).__name__}: {error}"
    gpus, gpu_error = [], ""
    try:
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, total = torch.cuda.mem_get_info(index)
            gpus.append(Gpu(torch.cuda.get_device_name(index), total / 1e9, free / 1e9,
                            torch.cuda.get_device_capability(index)))
    except Exception as error:  # a driver that does not fit, a device that somebody else has for himself
        gpu_error = f"{type(error).__name__}: {error}"
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return Torch(torch.__version__, vision, error_text, torch.version.cuda, cudnn, tuple(gpus), gpu_error,
                 torch.backends.mps.is_available(), torch.get_num_threads())


def cpu_flags(text: str | None = None) -> frozenset[str]:
    """Return which of `FLAGS` the processor has, from ``/proc/cpuinfo`` or, on a Mac, from sysctl."""
    if text is None:
        try:
            text = CPUINFO.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return mac_flags() if sys.platform == "darwin" else frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split()) & frozenset(FLAGS)


def mac_flags() -> frozenset[str]:
    """Return ``bf16`` where a Mac's processor has its instructions."""
    try:
        answer = subprocess.run(["sysctl", "-n", "hw.optional.arm.FEAT_BF16"], capture_output=True, text=True,
                                timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset({"asimd", "bf16"} if answer.strip() == "1" else {"asimd"})


def cpu() -> Cpu:
    """Return what the processor is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpu(cpu_name(), cores, cpu_flags(), cpu_quota())


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_quota(root: Path = CGROUP) -> float | None:
    """Return the cores' worth of CPU time that the control group allows, of either version; None: no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max" or -1
    return int(quota) / int(period)


def memory(root: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Memory:
    """Return memory and its limit."""
    try:
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, available = (int(rows[key].split()[0]) * 1024 / 1e9 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        available = total
    for file in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            limit = int(file.read_text().strip()) / 1e9
        except (OSError, ValueError):
            continue
        return Memory(total, available, limit if limit < total else None)
    return Memory(total, available)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the type of the file system that holds ``path``, empty where the system does not say."""
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    target, best, kind = str(path.resolve()), "", ""
    for row in rows:
        where = row[1].replace("\\040", " ") if len(row) > 2 else ""
        inside = where == "/" or target == where or target.startswith(where.rstrip("/") + "/")
        if where and inside and len(where) >= len(best):
            best, kind = where, row[2]
    return kind


def existing(path: Path) -> Path:
    """Return the nearest folder above ``path`` that is there."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def shared_memory() -> float | None:
    """Return the GB free in /dev/shm; None where there is none."""
    return shutil.disk_usage("/dev/shm").free / 1e9 if Path("/dev/shm").is_dir() else None


def open_files() -> int:
    """Return how many files a process may open."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def tools() -> Tools:
    """Return which programs are there, and what the environment sets; values of secrets are not read."""
    names = ("git", "sbatch", "squeue", "nvidia-smi", "chromium", "chromium-browser", "google-chrome")
    keys = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "WANDB_MODE", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID",
            "CUBLAS_WORKSPACE_CONFIG", "TMPDIR")
    environment = {key: os.environ[key] for key in keys if key in os.environ}
    if "WANDB_API_KEY" in os.environ:
        environment["WANDB_API_KEY"] = "set"
    return Tools({name: where for name in names if (where := shutil.which(name))}, environment)
