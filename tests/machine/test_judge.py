"""What follows from facts: every fact is given, none is looked up."""

from dataclasses import replace
from pathlib import Path

import pytest

from segexp.errors import ConfigError
from segexp.machine import judge, precision
from segexp.machine.defects import defects
from segexp.machine.facts import Cpu, Gpu, Memory, Place, Tools, Torch, cpu_flags, cpu_quota, file_system, memory

GOOD = {"torch": "2.12.0+cu130", "torchvision": "0.27.0", "pytorch-lightning": "2.6.6", "hydra-core": "1.3.8",
        "omegaconf": "2.3.1", "monai": "1.6.1", "numpy": "2.4.6", "tensorboard": "2.21.0", "setuptools": "82.0"}
TORCH = Torch("2.12.0", "0.27.0", threads=4)
H100 = Gpu("NVIDIA H100", 85.0, 84.0, (9, 0))
CPU = Cpu("a processor", 8, frozenset({"avx2", "fma"}))


@pytest.mark.parametrize(("package", "version", "level", "message"), [
    ("pytorch-lightning", "2.6.2", "fail", "malicious"), ("pytorch-lightning", "2.6.3", "fail", "malicious"),
    ("pytorch-lightning", "2.6.5", "fail", "may run code"), ("pytorch-lightning", "2.7.0", "warn", "not tried"),
    ("hydra-core", "1.3.2", "fail", "any function"), ("hydra-core", "1.4.0", "warn", "other rules"),
    ("omegaconf", "2.4.0", "fail", "does not fit"), ("omegaconf", "2.3.0", "fail", "does not fit"),
    ("monai", "1.5.0", "fail", "unpickles"), ("torch", "2.9.1+cu128", "fail", "bfloat16 are wrong"),
    ("torch", "2.9.1+cpu", "warn", "older"), ("tensorboard", "2.20.0", "fail", "pkg_resources"),
    ("numpy", "1.26.4", "warn", "older"),
])
def test_versions_with_known_defects(package: str, version: str, level: str, message: str) -> None:
    found = defects({**GOOD, package: version})
    assert [one.level for one in found] == [level]
    assert message in found[0].text and f"{package} {version}" in found[0].text and found[0].advice
    assert [one.level for one in defects(GOOD)] == ["ok"]


def test_torch_that_cannot_be_imported_is_explained() -> None:
    broken = Torch("2.12.0", error="import torchvision: RuntimeError: operator torchvision::nms does not exist")
    found = judge.torch(broken)
    assert found.level == "fail" and "made for another build of torch" in found.text
    assert "torchvision==0.27.*" in found.advice
    assert judge.torch(Torch(error="import torch: OSError: libcudart.so.13: cannot open")).level == "fail"
    assert judge.torch(replace(TORCH, vision="0.26.0")).level == "warn"
    assert judge.torch(TORCH).level == "ok"


def test_devices_are_named_and_missing_ones_explained() -> None:
    both = replace(TORCH, cuda="13.0", cudnn=92000, gpus=(H100, replace(H100, free_gb=3.0)))
    found = judge.devices(both, Tools())
    assert [one.level for one in found] == ["ok", "ok", "warn"] and "84 of 85 GB free" in found[0].text
    smi = Tools({"nvidia-smi": "/usr/bin/nvidia-smi"})
    assert "built for the CPU" in judge.devices(TORCH, smi)[0].text
    hidden = Tools(smi.found, {"CUDA_VISIBLE_DEVICES": ""})
    assert judge.devices(replace(TORCH, cuda="13.0"), hidden)[0].advice == "unset CUDA_VISIBLE_DEVICES"
    assert judge.devices(TORCH, Tools())[0].level == "ok"


@pytest.mark.parametrize(("flags", "expected"), [
    ({"avx2"}, False), ({"avx2", "avx512f"}, False), ({"avx512_bf16"}, True), ({"amx_bf16"}, True), ({"bf16"}, True),
])
def test_bfloat16_needs_instructions_of_its_own(flags: set[str], expected: bool) -> None:
    assert precision.bf16_on_cpu(frozenset(flags)) is expected
    refused = precision.refusal("bf16-mixed", "cpu", frozenset(flags), cuda=True, mps=False)
    assert bool(refused) is not expected
    assert not precision.refusal("32-true", "cpu", frozenset(flags), cuda=False, mps=False)
    assert not precision.refusal("bf16-mixed", "auto", frozenset(flags), cuda=True, mps=False)


def test_slow_precision_is_refused_unless_it_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))
    config = {"trainer": {"precision": "bf16-mixed", "accelerator": "cpu"}}
    with pytest.raises(ConfigError, match=r"11 to 33 times slower.*force_precision=true"):
        precision.refuse_slow_precision(config)
    precision.refuse_slow_precision({**config, "force_precision": True})
    precision.refuse_slow_precision({"trainer": {"precision": "32-true", "accelerator": "cpu"}})
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    precision.refuse_slow_precision(config)


def test_precision_is_judged_by_instructions_and_by_the_clock() -> None:
    slow = judge.precision(TORCH, frozenset({"avx2"}), {"cpu": (0.01, 0.2)})
    assert slow[0].text.startswith("cpu: 32-true") and "20 times as long" in slow[0].text
    assert "force_precision=true" in slow[0].advice
    assert judge.precision(TORCH, frozenset({"amx_bf16"}), {"cpu": (0.02, 0.01)})[0].level == "ok"
    assert judge.precision(TORCH, frozenset({"avx512_bf16"}), {"cpu": (0.01, 0.02)})[0].level == "warn"
    cards = judge.precision(replace(TORCH, gpus=(H100, replace(H100, capability=(7, 0)))), frozenset(), {})
    assert "bf16-mixed" in cards[1].text and "16-mixed" in cards[2].text


def test_layout_follows_the_measurement_where_there_is_one() -> None:
    assert "with batch normalisation" in judge.layout({"batch": 1.7, "instance": 0.6}).text
    assert "keep networks contiguous" in judge.layout({"batch": 1.1, "instance": 0.6}).text
    assert "1.7 times" in judge.layout({}).text


@pytest.mark.parametrize(("cpu", "environment", "level"), [
    (CPU, {}, "ok"), (CPU, {"OMP_NUM_THREADS": "8"}, "ok"), (CPU, {"OMP_NUM_THREADS": "64"}, "warn"),
    (replace(CPU, quota=2.0), {}, "warn"), (CPU, {"OMP_NUM_THREADS": "1"}, "warn"),
])
def test_threads_against_cores_and_quota(cpu: Cpu, environment: dict[str, str], level: str) -> None:
    found = judge.threads(cpu, replace(TORCH, threads=8), Tools(environment=environment))
    assert found.level == level and bool(found.advice) == (level == "warn")


def test_folders_memory_and_limits() -> None:
    good = Place("/data/outputs", 500.0, "ext4")
    assert [one.level for one in judge.place("outputs", good)] == ["ok"]
    assert [one.level for one in judge.place("outputs", replace(good, free_gb=10.0))] == ["warn"]
    assert [one.level for one in judge.place("outputs", replace(good, free_gb=0.5))] == ["fail"]
    shared = judge.place("outputs", replace(good, kind="nfs4"))
    assert shared[0].level == "warn" and "between machines" in shared[0].advice
    broken = judge.place("outputs", replace(good, problems=("flock does not work: not supported",)))
    assert broken[0].level == "fail" and "paths.outputs=FOLDER" in broken[0].advice
    assert judge.memory(Memory(64.0, 60.0)).level == "ok"
    assert judge.memory(Memory(64.0, 60.0, limit_gb=4.0)).level == "warn"
    assert [judge.shared_memory(free).level for free in (None, 0.06, 8.0)] == ["ok", "warn", "ok"]
    assert [judge.open_files(limit).level for limit in (256, 65536, -1)] == ["warn", "ok", "ok"]
    assert judge.processor(replace(CPU, flags=frozenset({"fma"}))).level == "warn"
    assert [judge.python(version).level for version in ((3, 10, 1), (3, 11, 7), (3, 14, 0))] == ["fail", "ok", "fail"]


def test_programs_and_tracking() -> None:
    found = {one.topic: one for one in judge.programs(Tools(), {})}
    assert found["git"].level == "warn" and "not installed" in found["wandb"].text
    there = Tools({"git": "/usr/bin/git", "sbatch": "/usr/bin/sbatch"}, {"WANDB_API_KEY": "set", "SLURM_JOB_ID": "7"})
    found = {one.topic: one for one in judge.programs(there, {"wandb": "0.20"})}
    assert "hydra/launcher=slurm" in found["slurm"].text and "inside job 7" in found["slurm"].text
    assert "an account's key is set" in found["wandb"].text


def test_what_the_system_says_is_read(tmp_path: Path) -> None:
    assert cpu_flags("model name: x\nflags : fpu avx2 avx512_bf16 sse\n") == {"avx2", "avx512_bf16"}
    assert cpu_flags("Features : fp asimd bf16 sve\n") == {"asimd", "bf16", "sve"}
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    assert cpu_quota(tmp_path) == 1.5
    assert memory(tmp_path, tmp_path / "meminfo").limit_gb == 4
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cpu_quota(tmp_path) is None and memory(tmp_path, tmp_path / "meminfo").limit_gb is None
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nhost:/x {tmp_path}/data nfs4 rw 0 0\n")
    (tmp_path / "data" / "deep").mkdir(parents=True)
    assert [file_system(path, mounts) for path in (tmp_path / "data" / "deep", tmp_path)] == ["nfs4", "ext4"]
