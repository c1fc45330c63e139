"""Which precision a device is good for, and the refusal of one that would take many times as long."""

from collections.abc import Mapping
from typing import Any

from segexp.errors import ConfigError
from segexp.machine.facts import Torch, cpu_flags

NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Instruction sets that compute in bfloat16."""
SLOWER = "11 to 33 times slower than float32"
FORCE = "force_precision"


def bf16_on_cpu(flags: frozenset[str]) -> bool:
    """Say whether a processor with these instruction sets computes in bfloat16 itself."""
    return bool(flags & NATIVE_BF16)


def trains_on_cpu(accelerator: str, cuda: bool, mps: bool) -> bool:
    """Say whether Lightning will train on the CPU."""
    return accelerator == "cpu" or (accelerator == "auto" and not cuda and not mps)


def refusal(precision: str, accelerator: str, flags: frozenset[str], cuda: bool, mps: bool) -> str:
    """Say why a precision is not worth using here; "" where it is.

    Args:
        precision: as in ``trainer.precision``.
        accelerator: as in ``trainer.accelerator``.
        flags: instruction sets of the processor.
        cuda: whether there is a CUDA device.
        mps: whether there is an Apple GPU.
    """
    if not str(precision).startswith(("bf16", "16")) or not trains_on_cpu(accelerator, cuda, mps):
        return ""
    if bf16_on_cpu(flags):
        return ""
    return (f"trainer.precision={precision}: this CPU has no instructions for it (none of "
            f"{', '.join(sorted(NATIVE_BF16))}), so that training would be {SLOWER}; use trainer.precision=32-true, "
            f"a GPU (trainer=gpu), or {FORCE}=true to train like that all the same")


def refuse_slow_precision(config: Mapping[str, Any]) -> None:
    """Refuse to train in a precision that this machine only emulates, unless ``force_precision`` is true.

    Args:
        config: a composed or resolved ``train`` configuration.

    Raises:
        ConfigError: it would be many times slower than float32.
    """
    trainer = config["trainer"]
    precision, accelerator = str(trainer.get("precision") or "32-true"), str(trainer.get("accelerator") or "auto")
    if not precision.startswith(("bf16", "16")) or config.get(FORCE):
        return  # torch is not asked where there is nothing to ask
    import torch

    reason = refusal(precision, accelerator, cpu_flags(), torch.cuda.is_available(),
                     torch.backends.mps.is_available())
    if reason:
        raise ConfigError(reason)


def advice(torch_facts: Torch, flags: frozenset[str]) -> dict[str, str]:
    """Return device -> the precision worth using on it, with its reason."""
    found = {"cpu": "bf16-mixed may pay: its instructions are there" if bf16_on_cpu(flags)
             else f"32-true: no instructions for bfloat16, which would be {SLOWER}"}
    for index, gpu in enumerate(torch_facts.gpus):
        major = gpu.capability[0]
        found[f"cuda:{index}"] = ("bf16-mixed (trainer=gpu)" if major >= 8 else
                                  "16-mixed: bfloat16 is emulated before compute capability 8.0" if major >= 7 else
                                  "32-true: no tensor cores")
    if torch_facts.mps:
        found["mps"] = "32-true"
    return found
