"""Several devices: who this process is among the ranks, starting ranks, dealing a step's batches to them.

How many devices there are does not change what a run computes. A step is ``trainer.accumulate_grad_batches`` batches;
the ranks share them, each normalised and scored on its own as when one process takes them one after the other. A
number of batches that the ranks cannot share evenly is computed by every rank: right, but no faster.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from segexp.errors import ConfigError, Preempted, SegexpError

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"
CPU_RANKS = 2
"""Ranks of ``trainer=ddp`` on a machine without a GPU: there to try it."""


def rank() -> int:
    """Return this process's number among all ranks, as torchrun or Slurm has set it; 0 alone."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"]) if on_slurm() else 0


def on_slurm() -> bool:
    """Say whether ``srun`` has started this process as one of several tasks."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ


def is_rank() -> bool:
    """Say whether somebody else has started this process as one of several ranks."""
    return "RANK" in os.environ or on_slurm()


def world() -> tuple[int, int]:
    """Return how many ranks there are on this machine, and on how many machines, as torchrun or Slurm has set it."""
    if "RANK" in os.environ:
        everywhere, here = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return here, max(1, everywhere // here)
    if on_slurm():
        nodes = int(os.environ.get("SLURM_NNODES", os.environ.get("SLURM_JOB_NUM_NODES", "1")))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1


def local_rank() -> int:
    """Return this process's number among the ranks of its machine."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0") if on_slurm() else "0"))


def devices_of(config: Any) -> int:
    """Return how many devices of this machine a configuration asks for.

    Raises:
        ConfigError: ``trainer.devices`` is none of a number, a list of them, ``auto`` or -1.
    """
    devices = config.trainer.get("devices", 1)
    if isinstance(devices, int) and devices > 0:
        return devices
    if not isinstance(devices, str | int):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        found = 0 if config.trainer.get("accelerator") == "cpu" else gpus()
        return found or (CPU_RANKS if config.trainer.get("strategy", "auto") != "auto" else 1)
    if str(devices).isdigit() and int(devices) > 0:
        return int(devices)
    raise ConfigError(f"trainer.devices={devices}: expected a number of devices, a list of them, or auto")


def gpus() -> int:
    """Return how many GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def launch(config: Any, words: Sequence[str]) -> int | None:
    """Start the ranks that a configuration asks for and wait for them.

    Args:
        config: a composed ``train`` configuration.
        words: what comes after ``segexp`` on the command line of every rank.

    Returns:
        The exit code of the ranks; None when this process is to train itself: with one device, or as a rank.

    Raises:
        ConfigError: several machines are asked for, which torchrun or Slurm have to start.
    """
    devices, nodes = devices_of(config), int(config.trainer.get("num_nodes", 1) or 1)
    if is_rank() or devices * nodes == 1:
        return None
    if nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={nodes}: start the command on every machine with torchrun (torchrun --nnodes {nodes} "
            f"--nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m segexp "
            f"{words[0] if words else 'train'} ...), or add -m hydra/launcher=slurm")
    return torchrun(devices, words, int(config.threads or 0))


def torchrun(ranks: int, words: Sequence[str], threads: int) -> int:
    """Run ``segexp <words>`` as ``ranks`` processes of this machine under torch's elastic agent.

    The first one that fails ends the others. A signal is passed on, and every rank saves before it ends.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the ranks say it themselves
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # unused parameters are looked for on purpose
    os.environ.setdefault("OMP_NUM_THREADS", str(threads or max(1, (os.cpu_count() or 1) // ranks)))
    settings = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=ranks, run_id="segexp", max_restarts=0,
                            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
                            monitor_interval=0.2, signals_to_handle=SIGNALS)
    try:
        elastic_launch(settings, sys.executable)("-u", "-m", "segexp", *words)
    except ChildFailedError as error:
        number, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        codes = {item.exitcode for item in error.failures.values()}
        if codes == {Preempted.exit_code}:
            return Preempted.exit_code
        if failure.exitcode < 0:
            print(f"segexp: error: rank {number} was killed by signal {-failure.exitcode}; the same command goes on "
                  "from the last checkpoint", file=sys.stderr)
            return SegexpError.exit_code
        return failure.exitcode
    except SignalException as stop:
        print(f"segexp: stopped by {stop.sigval.name}; the same command goes on from the last checkpoint",
              file=sys.stderr)
        return 130 if stop.sigval.name == "SIGINT" else Preempted.exit_code
    return 0


def ddp(timeout_minutes: float = 120, **options: Any) -> Any:
    """Return Lightning's data-parallel strategy.

    Args:
        timeout_minutes: how long a rank waits for another one; the first prepares the data while the others wait.
        **options: of torch's DistributedDataParallel. A target without labels in a batch leaves its decoder without
            gradient, so unused parameters are looked for; buffers are shared once per step (``RunningStatistics``).
    """
    from pytorch_lightning.strategies import DDPStrategy

    return DDPStrategy(timeout=timedelta(minutes=timeout_minutes), **{"find_unused_parameters": True,
                                                                      "broadcast_buffers": False, **options})


def trainer_settings(config: Any) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that follow from the ranks there are."""
    here, nodes = world()
    if here * nodes == 1:
        return {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    settings = {"devices": here, "num_nodes": nodes}
    if config.trainer.get("strategy", "auto") == "auto":
        settings["strategy"] = ddp()
    return settings


@contextmanager
def together(config: Any) -> Iterator[None]:
    """Be connected with the other ranks in this block; Lightning finds the connection and uses it."""
    import torch

    if not is_rank():
        yield
        return
    if on_slurm():
        slurm = environment()[0]
        os.environ.setdefault("MASTER_ADDR", slurm.main_address)
        os.environ.setdefault("MASTER_PORT", str(slurm.main_port))
    cuda = config.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
    strategy = config.trainer.get("strategy")
    minutes = strategy.get("timeout_minutes", 120) if hasattr(strategy, "get") else 120
    here, nodes = world()
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(minutes=minutes),
                                         rank=rank(), world_size=here * nodes)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def wait() -> None:
    """Wait until every rank has come here."""
    agree(None)


def agree(value: Any) -> Any:
    """Return the first rank's value on every rank."""
    import torch

    if not is_rank():
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def environment() -> list[Any]:
    """Return how Lightning finds the ranks: not by guessing, and without its own answers to Slurm's signals."""
    from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    if "RANK" in os.environ:
        return [TorchElasticEnvironment()]
    return [SLURMEnvironment(auto_requeue=False) if on_slurm() else LightningEnvironment()]


def share(batches: int, ranks: int) -> int:
    """Return how many of a step's ``batches`` every rank takes: its part, or all where they cannot be shared."""
    return batches // ranks if batches % ranks == 0 else batches
