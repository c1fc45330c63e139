"""What a run writes about itself: before its first step, and when it ends."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from segexp.config.objects import plain
from segexp.console import duration, say
from segexp.files import sha256, write_text
from segexp.redaction import redacted_words
from segexp.runs.directory import SCHEMA, Run


def record_name(run: Run, config: Any, command: Sequence[str]) -> None:
    """Write who the run is, before its data are looked at."""
    run.update(schema=SCHEMA, id=run.id, hash=run.hash, name=config.name, status="running", seed=config.seed,
               scale=config.scale.name, steps=config.steps, command=" ".join(redacted_words(command)),
               started=run.info.get("started", now()), finished=None, error=None)


def record_start(run: Run, config: Any, datamodule: Any) -> None:
    """Write what the run is made from, before its first step."""
    import pandas as pd
    import yaml

    from segexp.runs import provenance

    content = plain(config)
    write_text(run.path / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    table = pd.DataFrame(datamodule.split_table(), columns=["case", "person", "split"])
    write_text(run.path / "split.csv", table.to_csv(index=False))
    difference = provenance.git_diff()
    if difference:
        write_text(run.path / "code.diff", difference)
    run.update(phantom=datamodule.phantom, data_fingerprint=datamodule.fingerprint, git=provenance.git_state(),
               packages=provenance.packages(), hardware=provenance.hardware())


def record_training(run: Run, trainer: Any, seconds: float) -> None:
    """Write what the training took."""
    before = run.info.get("resources", {}).get("train_seconds", 0)
    run.update(resources={
        "train_seconds": round(before + seconds, 1), "peak_memory_gb": round(peak_memory(trainer), 3),
        "device": device_name(trainer), "devices": trainer.world_size, "checkpoint_sha256": sha256(run.checkpoint)})


def record_result(run: Run, rows: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Write the scores and the page, and mark the run as done."""
    from segexp.metrics.scores import write_scores
    from segexp.reports.page import write_run_page

    write_scores(rows, run.path / "scores.csv")
    (run.path / "error.txt").unlink(missing_ok=True)
    run.update(status="done", finished=now(), error=None)
    (run.path / "progress.json").unlink(missing_ok=True)
    write_run_page(run)
    say(f"{run.id}: done, trained in {duration(seconds)}")


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def reset_peak() -> None:
    """Forget the GPU memory used before training."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(trainer: Any) -> float:
    """Return the peak in GB: of the GPU where one trains, else of the process."""
    import torch

    from segexp.runs.provenance import peak_memory_gb

    return torch.cuda.max_memory_allocated() / 1e9 if trainer.strategy.root_device.type == "cuda" else peak_memory_gb()


def device_name(trainer: Any) -> str:
    """Return the name of the training device."""
    import torch

    from segexp.runs.provenance import processor

    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}: {processor()}"
