"""What an export says about itself: configuration, label maps, what the network's input is, where it comes from."""

import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import PurePath
from typing import Any

from segexp.config.objects import plain
from segexp.runs.directory import Run
from segexp.runs.identity import semantic_config

SECRET = re.compile(r"(?i)(passw|secret|token|api_?key|credential)")
AXES = {3: "right, anterior, superior (RAS)", 2: "right, anterior: an axial slice, superior fixed"}


def describe(run: Run, config: Any, module: Any, datamodule: Any, channels: Mapping[str, int],
             spatial: int) -> dict[str, Any]:
    """Return everything that somebody without segexp needs to use the network, as plain JSON types.

    Args:
        run: the finished run.
        config: its configuration.
        module: its LightningModule, restored.
        datamodule: its data module, restored.
        channels: target -> channels of its logits.
        spatial: axes of the network's input, 2 or 3.
    """
    from segexp import __version__

    info = run.info
    return {
        "segexp": __version__, "run": run.id, "seed": info.get("seed"), "trained": info.get("finished"),
        "code": (info.get("git") or {}).get("commit"), "synthetic_data": bool(info.get("phantom")),
        "checkpoint_sha256": (info.get("resources") or {}).get("checkpoint_sha256"),
        "input": {"channels": 1, "axes": AXES[spatial], "intensity": intensity_of(datamodule),
                  "spacing_mm": list(config.data.get("resample") or []) or None,
                  "data_state": datamodule.state_dict() if hasattr(datamodule, "state_dict") else {}},
        "targets": {target: target_of(label_map, channels[target]) for target, label_map in module.label_maps.items()},
        "facts": dict(module.facts), "cautions": list(module.cautions),
        "configuration": portable(semantic_config(plain(config))),
    }


def target_of(label_map: Any, channels: int) -> dict[str, Any]:
    """Return how logits become file values: class index, value in label files, name."""
    decided = ("sigmoid of the one logit at least inference.threshold is class 1" if channels == 1
               else "the class of the largest logit")
    classes = [{"index": index, "value": value, "name": name}
               for index, (value, name) in enumerate(zip(label_map.values, label_map.names, strict=True))]
    return {"logits": channels, "decided_by": decided, "classes": classes}


def intensity_of(datamodule: Any) -> dict[str, Any]:
    """Return how voxels become the network's input, with what was learnt from the training data filled in."""
    intensity = datamodule.intensity
    text = " ".join((type(intensity).__doc__ or "").partition("\n")[0].split())
    fields = asdict(intensity) if is_dataclass(intensity) else {}
    return {"_target_": f"{type(intensity).__module__}.{type(intensity).__qualname__}", **fields, "meaning": text}


def portable(value: Any) -> Any:
    """Return plain content without this machine's folders and without anything that is named as a secret."""
    if isinstance(value, Mapping):
        return {str(key): portable(child) for key, child in value.items() if not SECRET.search(str(key))}
    if isinstance(value, list | tuple):
        return [portable(child) for child in value]
    if isinstance(value, str) and (value.startswith(("/", "~", "file:")) or re.match(r"[A-Za-z]:[\\/]", value)):
        return PurePath(value.replace("\\", "/")).name
    return value
