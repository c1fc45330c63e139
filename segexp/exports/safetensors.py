"""Weights as safetensors beside a description in JSON: no code, read by any language."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segexp.exports.parity import ParityError, identical, logits_of, sample
from segexp.exports.subject import Subject
from segexp.files import write_json

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def write(subject: Subject, folder: Path) -> None:
    """Write the network's weights and buffers, and the description."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in subject.network.state_dict().items()}
    # One entry only: with more, their order, and so the file, would differ from time to time.
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / DESCRIPTION, subject.description)


def check(subject: Subject, folder: Path) -> dict[str, Any]:
    """Read what was written, build the network from it and compare tensors and outputs bit for bit.

    Raises:
        ParityError: something differs, or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / WEIGHTS)
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ParityError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    identical(tensors, subject.network.state_dict(), WEIGHTS)
    network = rebuilt(description, tensors, subject.allow)
    identical(logits_of(network, sample(subject.shape)), subject.expected, "logits")
    return {"tensors": len(tensors), "max_abs_difference": 0.0, "label_agreement": 1.0, "input": list(subject.shape)}


def rebuilt(description: Mapping[str, Any], tensors: Mapping[str, Any], allow: tuple[str, ...] = ()) -> Any:
    """Return the network that a description and its weights are, in evaluation mode.

    Raises:
        ParityError: the weights do not fit the described network.
    """
    from segexp.config import instantiate

    network = instantiate(description["configuration"]["network"], allow=allow)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ParityError(f"the weights do not fit the described network: {error}") from error
    return network.eval()
