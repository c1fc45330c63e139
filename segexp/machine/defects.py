"""Versions of packages that are known to be wrong, and what to install instead."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from segexp.machine.finding import Finding


@dataclass(frozen=True)
class Defect:
    """A range of versions with a defect: ``hit`` (version, all packages) says whether it is there."""

    package: str
    hit: Callable[[tuple[int, ...], Mapping[str, str]], bool]
    level: str
    what: str
    instead: str


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``2.9.1+cu128`` is (2, 9, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def with_cuda(packages: Mapping[str, str]) -> bool:
    """Say whether torch is a build for CUDA, as far as its version tells: the CPU's is named so."""
    return "+cpu" not in packages.get("torch", "")


KNOWN = (
    Defect("pytorch-lightning", lambda v, _: v in ((2, 6, 2), (2, 6, 3)), "fail",
           "a malicious upload that runs when it is imported",
           "remove it, change every password this machine knows, install pytorch-lightning>=2.6.6,<2.7"),
    Defect("pytorch-lightning", lambda v, _: v < (2, 6, 6), "fail",
           "a checkpoint may run code, even one that is loaded with weights_only", "pytorch-lightning>=2.6.6,<2.7"),
    Defect("pytorch-lightning", lambda v, _: v >= (2, 7), "warn", "not tried with segexp", "pytorch-lightning<2.7"),
    Defect("hydra-core", lambda v, _: v < (1, 3, 8), "fail", "a configuration may call any function",
           "hydra-core>=1.3.8,<1.4"),
    Defect("hydra-core", lambda v, _: v >= (1, 4), "warn", "other rules of overrides and targets", "hydra-core<1.4"),
    Defect("omegaconf", lambda v, _: not (2, 3, 1) <= v < (2, 4), "fail", "does not fit hydra-core 1.3.8",
           "omegaconf>=2.3.1,<2.4"),
    Defect("monai", lambda v, _: v < (1, 6), "fail", "unpickles files that it reads", "monai>=1.6"),
    Defect("torch", lambda v, p: v[:2] == (2, 9) and with_cuda(p), "fail",
           "3D convolutions in bfloat16 are wrong with some cuDNN, three times the memory, four times slower with AMP",
           "torch>=2.11"),
    Defect("torch", lambda v, _: v < (2, 11), "warn", "older than any version segexp is tested with", "torch>=2.11"),
    Defect("tensorboard", lambda v, p: v < (2, 21) and numbers(p.get("setuptools", "0")) >= (82,), "fail",
           "needs pkg_resources, which setuptools 82 no longer has", "tensorboard>=2.21"),
    Defect("tensorboard", lambda v, _: v < (2, 21), "warn", "breaks with setuptools 82", "tensorboard>=2.21"),
    Defect("numpy", lambda v, _: v < (2,), "warn", "older than any version segexp is tested with", "numpy>=2"),
    Defect("nibabel", lambda v, _: v < (5, 3), "warn", "does not read everything with numpy 2", "nibabel>=5.3"),
    Defect("wandb", lambda v, _: v < (0, 20), "warn", "its offline mode asks for an account", "wandb>=0.20"),
    Defect("optuna", lambda v, _: v < (4, 9), "warn", "its file journal is another one", "optuna>=4.9,<6"),
)


def defects(packages: Mapping[str, str]) -> list[Finding]:
    """Return one finding per package with a known defect, and one for all the others.

    Args:
        packages: name -> version of what is installed.
    """
    found: list[Finding] = []
    seen: set[str] = set()
    for known in KNOWN:
        version = packages.get(known.package)
        if version is None or known.package in seen or not known.hit(numbers(version), packages):
            continue
        seen.add(known.package)
        found.append(Finding(known.level, "versions", f"{known.package} {version}: {known.what}",
                             f"install {known.instead}" if not known.instead.startswith("remove") else known.instead))
    if not found:
        found.append(Finding("ok", "versions", f"{len(packages)} packages, none with a known defect"))
    return found
