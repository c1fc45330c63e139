"""Label images with a finished run, one after the other, skipping what is there and still valid."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segexp.console import say, track
from segexp.errors import ConfigError, DataError, PartialError, SegexpError
from segexp.files import sha256
from segexp.predictions import bids
from segexp.runs.directory import Run
from segexp.runs.restore import changed_config, restore, restore_data


def predict(run: Run, source: str, output: str, targets: Sequence[str] | str | None = None, pattern: str = "*.nii*",
            device: str = "auto", changes: Sequence[str] = (), allow: Sequence[str] = (),
            config_dirs: Sequence[str] = ()) -> None:
    """Write the label maps of every image that ``source`` names below ``output``.

    Args:
        run: a finished run.
        source: a NIfTI file or a folder.
        output: folder of the BIDS derivatives.
        targets: some of the run's targets; None: all.
        pattern: which files below a folder are images.
        device: auto, cpu, cuda or mps.
        changes: overrides of the run's configuration, such as ``inference=sliding_window``.
        allow: module prefixes of the user that a ``_target_`` may name.
        config_dirs: the user's configuration folders.

    Raises:
        ConfigError: a target, device or option that does not exist.
        DataError: no image can be used.
        PartialError: some images could not be used; the others are done.

    """
    root, folder = Path(source), Path(output)
    config = changed_config(run, changes, config_dirs)
    images = bids.name_images(bids.find_images(root, pattern, folder), root if root.is_dir() else root.parent)
    datamodule = restore_data(run, config, allow)
    label_maps = datamodule.label_maps
    wanted = chosen(targets, list(label_maps), run.id)
    work = pending(images, wanted, folder, made_by(run, config, datamodule.reading))
    say(f"{len(images)} image{'s' * (len(images) != 1)}, {len(images) - len(work)} already there")
    bids.describe_dataset(folder, run.id, {target: label_maps[target] for target in wanted}, root)
    problems = {}
    if work:
        module = restore(run, config, label_maps, allow).to(device_of(device))
        for name, hashes in track(list(work.items()), "predict"):
            try:
                label(module, datamodule, name, images[name], folder, wanted, hashes)
            except DataError as error:
                problems[images[name]] = str(error)
                say(f"left out: {error}")
    report(problems, len(images), folder)


def chosen(targets: Sequence[str] | str | None, known: Sequence[str], run_id: str) -> list[str]:
    """Return the targets that are asked for.

    Raises:
        ConfigError: the run has no such target.

    """
    from segexp.config.names import hint

    wanted = [targets] if isinstance(targets, str) else list(targets or known)
    for target in wanted:
        if target not in known:
            raise ConfigError(f"targets={target}: run {run_id} has no such target{hint(target, list(known))}")
    return wanted


def made_by(run: Run, config: Any, reading: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of what decides a prediction besides the image: weights, configuration, how it is read."""
    import hashlib

    from segexp.config.objects import plain

    parts = {"network": plain(config.network), "inference": plain(config.inference), "reading": dict(reading)}
    settings = json.dumps(parts, sort_keys=True)
    return {"run": run.id, "weights": sha256(run.checkpoint),
            "configuration": hashlib.sha256(settings.encode()).hexdigest()}


def pending(images: Mapping[str, Path], targets: Sequence[str], folder: Path,
            maker: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return name -> hashes of the images whose label maps are missing, changed or made from something else."""
    work = {}
    for name, image in images.items():
        hashes = {**maker, "input": sha256(image)}
        if not all(valid(bids.label_file(folder, name, target), hashes) for target in targets):
            work[name] = hashes
    return work


def valid(file: Path, hashes: Mapping[str, str]) -> bool:
    """Say whether a label map is whole and made from exactly these inputs."""
    try:
        written = json.loads(bids.sidecar(file).read_text(encoding="utf-8"))["segexp"]
        return written == {**hashes, "output": sha256(file)}
    except (OSError, ValueError, KeyError):
        return False


def label(module: Any, datamodule: Any, name: str, image: Path, folder: Path, targets: Sequence[str],
          hashes: Mapping[str, str]) -> None:
    """Label one image as the data module reads it, and write its label maps, each with its JSON."""
    import torch

    from segexp.data.nifti import write_labels

    with torch.inference_mode():
        prediction, source = datamodule.label_file(
            image, lambda part: module.predict_step({"image": part.to(module.device)}, 0))
    for target in targets:
        file = bids.label_file(folder, name, target)
        write_labels(file, datamodule.label_maps[target].decode(prediction[target]), source)
        bids.describe_labels(file, hashes, sha256(file), image)


def device_of(name: str) -> Any:
    """Return the torch device for ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: there is no such device here.

    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present.get(name):
        raise ConfigError(f"device={name} is not there; this machine has: "
                          + ", ".join(device for device, here in present.items() if here))
    return torch.device(name)


def report(problems: Mapping[Path, str], total: int, folder: Path) -> None:
    """Say where the label maps are and which images were left out.

    Raises:
        DataError: no image could be used.
        PartialError: some could not.

    """
    if not problems:
        say(f"label maps of {total} image{'s' * (total != 1)} in {folder}")
        return
    text = f"{len(problems)} of {total} images could not be used:\n  " + "\n  ".join(problems.values())
    error: type[SegexpError] = DataError if len(problems) == total else PartialError
    raise error(text)
