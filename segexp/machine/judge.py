"""From facts to findings: each function says what follows from facts that are given to it."""

from collections.abc import Sequence

from segexp.machine.facts import Cpu, Memory, Place, Tools, Torch
from segexp.machine.finding import Finding
from segexp.machine.precision import SLOWER, advice, bf16_on_cpu

PAIRS = {"2.11": "0.26", "2.12": "0.27", "2.13": "0.28"}
"""torch -> the torchvision that was made beside it."""
NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "9p", "afs", "fuse.sshfs")
VOLATILE = ("tmpfs", "ramfs")
DISK_WARN, DISK_FAIL = 20.0, 2.0  # GB
SHARED_WARN = 1.0
MEMORY_WARN = 8.0
FILES_WARN = 1024
WORTH = 1.25
"""Times as fast from which on another memory layout counts as faster: less than that is chance."""
LAYOUT = ("channels_last_3d can pay for training with batch normalisation (1.7 times as fast on CPUs); contiguous for "
          "instance normalisation, nnU-Net's (0.6 times on CPUs, 0.8 on GPUs), and for inference")


def python(version: Sequence[int]) -> Finding:
    """Judge the version of Python."""
    text = ".".join(str(part) for part in version[:3])
    if (3, 11) <= tuple(version[:2]) < (3, 14):
        return Finding("ok", "python", text)
    return Finding("fail", "python", f"{text}: expected 3.11 to 3.13", "make an environment with one of these")


def torch(facts: Torch) -> Finding:
    """Judge whether torch and torchvision can be imported and belong together."""
    if facts.error:
        paired = PAIRS.get(".".join(facts.version.split(".")[:2]), "")
        which = f"torchvision=={paired}.*" if paired else "the torchvision of the same release"
        why = (" (torchvision was made for another build of torch: both must come from the same place, for the CPU or "
               "for the same CUDA)" if "nms" in facts.error or "torchvision" in facts.error else "")
        return Finding("fail", "torch", f"{facts.error}{why}",
                       f"install torch and {which} together, in one command" if facts.version else
                       "install torch again; requirements.lock has a pair that works")
    release, vision = (".".join(text.split(".")[:2]) for text in (facts.version, facts.vision))
    if release in PAIRS and PAIRS[release] != vision:
        return Finding("warn", "torch", f"{facts.version} with torchvision {facts.vision}",
                       f"torchvision {PAIRS[release]} was made for torch {release}")
    return Finding("ok", "torch", f"{facts.version} with torchvision {facts.vision}")


def devices(facts: Torch, tools: Tools) -> list[Finding]:
    """Judge the GPUs."""
    found = [Finding("ok", "gpu", f"cuda:{index} {gpu.name}, {gpu.free_gb:.0f} of {gpu.total_gb:.0f} GB free, compute "
                                  f"capability {gpu.capability[0]}.{gpu.capability[1]}, CUDA {facts.cuda}, cuDNN "
                                  f"{facts.cudnn}") for index, gpu in enumerate(facts.gpus)]
    found += [Finding("warn", "gpu", f"cuda:{index} {gpu.name}: {gpu.free_gb:.1f} of {gpu.total_gb:.0f} GB are free",
                      "somebody else uses it: nvidia-smi says who") for index, gpu in enumerate(facts.gpus)
              if gpu.free_gb < gpu.total_gb / 2]
    if facts.gpu_error:
        found.append(Finding("warn", "gpu", f"there, but not usable: {facts.gpu_error}", "does the driver fit CUDA "
                             f"{facts.cuda}? nvidia-smi shows its version"))
    if facts.mps:
        found.append(Finding("ok", "gpu", "mps: an Apple GPU"))
    if found:
        return found
    if "nvidia-smi" in tools.found and facts.version:
        hidden = tools.environment.get("CUDA_VISIBLE_DEVICES")
        why = (f"CUDA_VISIBLE_DEVICES={hidden!r} hides them" if hidden in ("", "-1") else
               "this torch is built for the CPU" if not facts.cuda else "torch sees none")
        return [Finding("warn", "gpu", f"nvidia-smi is there, but {why}",
                        "unset CUDA_VISIBLE_DEVICES" if "hides" in why else "install torch for CUDA, or look at "
                        "the driver with nvidia-smi")]
    return [Finding("ok", "gpu", "none: training runs on the CPU, good for scale=smoke and scale=demo")]


def processor(cpu: Cpu) -> Finding:
    """Judge the instruction sets."""
    names = ", ".join(sorted(cpu.flags)) or "no known instruction set"
    if cpu.flags and not cpu.flags & {"avx2", "asimd"}:
        return Finding("warn", "cpu", f"{cpu.name}, {cpu.cores} cores, {names}: without AVX2", "networks run several "
                       "times slower than on a processor of the last ten years")
    return Finding("ok", "cpu", f"{cpu.name}, {cpu.cores} cores: {names}")


def precision(facts: Torch, flags: frozenset[str], measured: dict[str, tuple[float, float]]) -> list[Finding]:
    """Judge which precision is worth using on each device.

    Args:
        facts: of torch.
        flags: instruction sets of the processor.
        measured: device -> seconds of a 3D convolution in float32 and in bfloat16; may be empty.
    """
    found = []
    for device, text in advice(facts, flags).items():
        level, times = "ok", measured.get(device)
        said = ""
        if times:
            ratio = times[1] / times[0]
            said = f"; measured: a bfloat16 convolution takes {ratio:.2g} times as long as in float32"
            if device == "cpu" and bf16_on_cpu(flags) and ratio > 1.5:
                level, text = "warn", "32-true: it has the instructions for bfloat16, but is slower with them"
        more = f"bf16-mixed on this CPU is refused ({SLOWER}) unless force_precision=true" if (
            device == "cpu" and not bf16_on_cpu(flags) and not facts.gpus) else ""
        found.append(Finding(level, "precision", f"{device}: {text}{said}", more))
    return found


def layout(measured: dict[str, float]) -> Finding:
    """Say which networks profit from channels_last_3d.

    Args:
        measured: ``batch`` and ``instance`` -> how many times faster a training step is with it.
    """
    if not measured:
        return Finding("ok", "layout", LAYOUT)
    told = ", ".join(f"{ratio:.2g} times as fast with {norm} normalisation" for norm, ratio in measured.items())
    worth = [norm for norm, ratio in measured.items() if ratio > WORTH]
    use = f"it can pay here with {' and '.join(worth)} normalisation" if worth else "keep networks contiguous here"
    return Finding("ok", "layout", f"channels_last_3d, a training step: {told}; {use}")


def threads(cpu: Cpu, facts: Torch, tools: Tools) -> Finding:
    """Judge the CPU threads against what this process may use."""
    usable = min(cpu.cores, cpu.quota or cpu.cores)
    given = tools.environment.get("OMP_NUM_THREADS")
    count = int(given) if given and given.isdigit() else facts.threads or cpu.cores
    told = f"{count} threads" + (f" (OMP_NUM_THREADS={given})" if given else "") + f", {cpu.cores} cores" + (
        f", {cpu.quota:g} of them by the container's quota" if cpu.quota else "")
    if count > usable + 0.5:
        fitting = max(1, int(usable))
        return Finding("warn", "threads", told, f"OMP_NUM_THREADS={fitting}, or threads={fitting}: more threads than "
                       "cores wait for each other")
    if count * 2 <= usable and given:
        return Finding("warn", "threads", told, f"one run alone is faster with OMP_NUM_THREADS={int(usable)}; right "
                       "where several runs share the machine")
    return Finding("ok", "threads", told)


def memory(facts: Memory) -> Finding:
    """Judge the memory and its limit."""
    usable = min(facts.limit_gb or facts.total_gb, facts.available_gb)
    told = f"{facts.available_gb:.0f} of {facts.total_gb:.0f} GB free" + (
        f", limit {facts.limit_gb:.1f} GB" if facts.limit_gb else "")
    if usable < MEMORY_WARN:
        return Finding("warn", "memory", told, "enough for scale=smoke and scale=demo; training at scale=paper takes "
                       f"{MEMORY_WARN:.0f} GB and more")
    return Finding("ok", "memory", told)


def shared_memory(free_gb: float | None) -> Finding:
    """Judge /dev/shm, through which loader workers hand over their crops."""
    if free_gb is None:
        return Finding("ok", "shared memory", "no /dev/shm here")
    if free_gb < SHARED_WARN:
        return Finding("warn", "shared memory", f"{free_gb:.2f} GB free in /dev/shm, too little for loader workers",
                       "data.workers=0, or give the container more: --shm-size=8g, --ipc=host")
    return Finding("ok", "shared memory", f"{free_gb:.0f} GB free in /dev/shm")


def place(topic: str, facts: Place) -> list[Finding]:
    """Judge a folder that is written to: room, kind of file system, locks and renames."""
    where = f"{facts.path}: {facts.free_gb:.0f} GB free" + (f" on {facts.kind}" if facts.kind else "")
    found = [Finding("fail", topic, f"{facts.path}: {problem}",
                     "choose another folder: paths.outputs=FOLDER" if topic == "outputs" else "set TMPDIR to another")
             for problem in facts.problems]
    if facts.free_gb < DISK_FAIL:
        found.append(Finding("fail", topic, where, "make room: a run's checkpoints and decoded volumes need gigabytes"))
    elif facts.free_gb < DISK_WARN and topic == "outputs":
        found.append(Finding("warn", topic, where, "decoded volumes take 15 to 50 MB per case: data.cache=FOLDER "
                             "elsewhere"))
    elif facts.kind in VOLATILE and topic == "outputs":
        found.append(Finding("warn", topic, f"{where}: in memory, gone when the machine restarts",
                             "paths.outputs=FOLDER on a disk"))
    elif facts.kind in NETWORKED and topic == "outputs":
        found.append(Finding("warn", topic, f"{where}: a network file system", "locks work from here; whether they "
                             "hold between machines depends on its mount (nfs: version 4; lustre: -o flock). Put "
                             "data.cache on a local disk"))
    elif not found:
        found.append(Finding("ok", topic, f"{where}, locks and renames work"))
    return found


def open_files(limit: int) -> Finding:
    """Judge how many files a process may open."""
    if 0 <= limit < FILES_WARN:
        return Finding("warn", "open files", f"at most {limit}", "ulimit -n 4096: loader workers need more")
    return Finding("ok", "open files", f"at most {limit}" if limit >= 0 else "no limit")


def programs(tools: Tools, packages: dict[str, str]) -> list[Finding]:
    """Judge the programs that are there: git, Slurm, a browser, Weights & Biases."""
    found = [Finding("ok", "git", tools.found["git"]) if "git" in tools.found else
             Finding("warn", "git", "not there: runs cannot record which code they come from", "install git")]
    slurm = "sbatch" in tools.found
    inside = f", inside job {tools.environment['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in tools.environment else ""
    found.append(Finding("ok", "slurm", f"sbatch is there{inside}: hydra/launcher=slurm" if slurm else
                         f"no sbatch on PATH{inside}: sweeps run on this machine"))
    browser = next((tools.found[name] for name in ("chromium", "chromium-browser", "google-chrome")
                    if name in tools.found), "")
    found.append(Finding("ok", "browser", browser or "no chromium: the tests that draw report pages are skipped"))
    mode = tools.environment.get("WANDB_MODE", "")
    key = ", an account's key is set" if "WANDB_API_KEY" in tools.environment else ""
    if "wandb" not in packages:
        text = "not installed: logger=wandb does not work"
    else:
        text = (f"WANDB_MODE={mode}{key}: it is what counts" if mode else
                f"offline unless logger.wandb.mode=online{key}")
    found.append(Finding("ok", "wandb", text))
    return found
