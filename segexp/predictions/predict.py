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
from segexp.runs.restore import changed_config, restore


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
    from segexp.config.objects import instantiate

    root, folder = Path(source), Path(output)
    config = changed_config(run, changes, config_dirs)
    images = bids.name_images(bids.find_images(root, pattern, folder), root if root.is_dir() else root.parent)
    label_maps = label_maps_of(config)
    wanted = chosen(targets, list(label_maps), run.id)
    work = pending(images, wanted, folder, made_by(run, config))
    say(f"{len(images)} image{'s' * (len(images) != 1)}, {len(images) - len(work)} already there")
    bids.describe_dataset(folder, run.id, {target: label_maps[target] for target in wanted}, root)
    problems = {}
    if work:
        module = restore(run, config, label_maps, allow).to(device_of(device))
        intensity = instantiate(config.data.get("intensity"), allow=allow)
        for name, hashes in track(list(work.items()), "predict"):
            try:
                label(module, name, images[name], folder, {target: label_maps[target] for target in wanted}, hashes,
                      intensity)
            except DataError as error:
                problems[images[name]] = str(error)
                say(f"left out: {error}")
    report(problems, len(images), folder)


def label_maps_of(config: Any) -> dict[str, Any]:
    """Return target -> label map of a run's configuration."""
    from segexp.config.objects import plain
    from segexp.data.labelmap import LabelMap

    structures = plain(config.data.label_maps)
    targets = plain(config.method.targets)
    return {target: LabelMap.from_mapping(target, structures[target])
            for target in ([targets] if isinstance(targets, str) else targets)}


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


def made_by(run: Run, config: Any) -> dict[str, str]:
    """Return the hashes of what decides a prediction besides the image: weights and configuration."""
    import hashlib

    from segexp.config.objects import plain

    parts = {"network": config.network, "inference": config.inference, "intensity": config.data.get("intensity")}
    settings = json.dumps({key: plain(part) for key, part in parts.items()}, sort_keys=True)
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


def label(module: Any, name: str, image: Path, folder: Path, label_maps: Mapping[str, Any],
          hashes: Mapping[str, str], intensity: Any = None) -> None:
    """Label one image, scaled by ``intensity``, and write its label maps, each with its JSON."""
    import torch

    from segexp.data import read_image_case
    from segexp.data.nifti import write_labels

    batch = read_image_case(image, intensity)
    with torch.inference_mode():
        prediction = module.predict_step({"image": batch["image"].to(module.device)}, 0)
    for target, label_map in label_maps.items():
        file = bids.label_file(folder, name, target)
        write_labels(file, label_map.decode(prediction[target][0].cpu().numpy()), batch["source"])
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
