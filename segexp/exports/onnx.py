"""The network as an ONNX graph, run through onnxruntime before it counts as written.

Only the network is in the graph, logits out: how a volume is cut, stitched and cleaned up stays in Python (tiling would
bake its shapes into the graph). Axes are free where the network permits; see ``AXES``.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segexp.errors import ConfigError
from segexp.exports.parity import DenseLogits, ParityError, compare, logits_of, sample
from segexp.exports.subject import Subject
from segexp.files import write_json

GRAPH, DESCRIPTION = "model.onnx", "model.json"
OPSET = 20
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def multiples(network: nn.Module) -> tuple[int | None, ...] | None:
    """Return, per spatial axis, what free sizes must be multiples of; None: the axis keeps its size.

    Where a network pads or pools by what its input lacks to some multiple, a graph can only hold one of both ways: the
    one for sizes that lack nothing. None for the whole: nothing is known of this network, every axis keeps its size.
    """
    from segexp.methods.kidney_ppm import FCNPPM, DynUNet, PSPNet2D, UNet3D
    from segexp.methods.kidney_ppm.network import REDUCTION
    from segexp.methods.neuronet import NeuroNet
    from segexp.methods.siamese import DenseUNet

    if isinstance(network, NeuroNet):
        return (network.stride,) * 3
    if isinstance(network, DenseUNet):
        return (1, 1)
    if isinstance(network, FCNPPM):  # no cell of the pyramid may be cut off
        return (REDUCTION * max([1, *(branch.kernel for branch in network.ppm.branches)]),) * 3
    if isinstance(network, UNet3D):  # four poolings without a remainder
        return (16,) * 3
    if isinstance(network, DynUNet):
        return (network.multiple,) * 3
    if isinstance(network, PSPNet2D):  # adaptive pooling to 1, 2, 3 and 6 cells needs the size of a slice
        return (None, None, 1)
    return None


def require() -> None:
    """Raise ConfigError, naming the extra to install, unless the packages for ONNX are there."""
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"format=onnx needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
                          "installed; install the extra: pip install 'segexp[onnx]'")


def axes_of(subject: Subject) -> tuple[int | None, ...]:
    """Return per spatial axis the multiple of free sizes, or None where the size is fixed (all are with ``size=``)."""
    free = multiples(subject.network)
    if free is None or subject.size is not None:
        return (None,) * (len(subject.shape) - 2)
    return free


def traced_shape(subject: Subject) -> tuple[int, ...]:
    """Return the shape that the graph is made with: small where axes are free, different along each of them."""
    # A size of one multiple would be taken for a constant.
    spatial = [size if free is None else free * (index + 2) if free > 1 else 32 + index
               for index, (size, free) in enumerate(zip(subject.shape[2:], axes_of(subject), strict=True))]
    return (2 if len(spatial) == 2 and any(axes_of(subject)) else 1, 1, *spatial)


def tried_shape(subject: Subject) -> tuple[int, ...]:
    """Return the shape of training, rounded up to what the graph takes."""
    spatial = [size if free is None else -(-size // free) * free
               for size, free in zip(subject.shape[2:], axes_of(subject), strict=True)]
    return (*subject.shape[:2], *spatial)


def write(subject: Subject, folder: Path) -> None:
    """Write the graph and the description.

    Raises:
        ConfigError: a package is missing.
        ParityError: the exporter cannot translate the network.
    """
    require()
    network = DenseLogits(unchunked(subject.network)).eval()
    shape = traced_shape(subject)
    image = sample(shape)
    with quiet(), torch.no_grad():
        try:
            program = torch.export.export(network, (image,), dynamic_shapes=(dynamic(subject, shape),), strict=False,
                                          prefer_deferred_runtime_asserts_over_guards=True)
            torch.onnx.export(program, (image,), folder / GRAPH, dynamo=True, opset_version=OPSET, external_data=False,
                              input_names=["image"], output_names=list(subject.expected))
        except Exception as error:  # the exporter has no base class of its own
            raise ParityError(refused(subject, error)) from error
    write_json(folder / DESCRIPTION, subject.description | {"onnx": {
        "opset": OPSET, "input": "image", "outputs": list(subject.expected), "sizes": stated(subject),
        "batch": "free" if shape[0] > 1 else 1}})


def refused(subject: Subject, error: Exception) -> str:
    """Return why the network has no graph."""
    reason = " ".join(str(error).split())[:300]
    free = "" if subject.size is not None else "; fix its sizes: size=[" + ",".join(map(str, subject.shape[2:])) + "]"
    return f"{type(subject.network).__name__} cannot be written as ONNX ({type(error).__name__}: {reason}){free}"


def unchunked(network: nn.Module) -> nn.Module:
    """Return a copy that labels all slices at once: a graph holds no loop over a number of slices that varies."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "chunk"):
            module.chunk = 0
    return network


def dynamic(subject: Subject, shape: Sequence[int]) -> dict[int, Any]:
    """Return axis -> the free dimension of the exporter."""
    from torch.export import Dim

    free: dict[int, Any] = {0: Dim("batch")} if shape[0] > 1 else {}
    for index, multiple in enumerate(axes_of(subject)):
        if multiple is not None:
            free[index + 2] = Dim.AUTO if multiple == 1 else multiple * Dim("xyz"[index])
    return free


def stated(subject: Subject) -> list[str | int]:
    """Return what sizes the graph takes, in words: ``multiple of 8``, or the size itself."""
    return [size if multiple is None else "any" if multiple == 1 else f"multiple of {multiple}"
            for size, multiple in zip(subject.shape[2:], axes_of(subject), strict=True)]


def check(subject: Subject, folder: Path) -> dict[str, Any]:
    """Run what was written through onnxruntime, on an image as in training.

    Raises:
        ParityError: it cannot be run, or returns something else than the run's network.
    """
    shape = tried_shape(subject)
    image = sample(shape)
    parity = compare(run(folder / GRAPH, image, list(subject.expected)), logits_of(subject.network, image))
    if not parity.close:
        raise ParityError(f"{GRAPH} differs from the run's network by up to {parity.difference:.3g} (logits up to "
                          f"{parity.largest:.3g}), {parity.agreement:.4%} of the labels agree; nothing was kept")
    return parity.record() | {"input": list(shape), "sizes": stated(subject)}


def run(file: Path, image: Tensor, targets: Sequence[str]) -> dict[str, Tensor]:
    """Return target -> logits of a graph, on the CPU.

    Raises:
        ParityError: onnxruntime cannot load or run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        outputs = session.run(list(targets), {"image": image.numpy()})
    except Exception as error:  # its exceptions share no base class
        raise ParityError(f"{file}: onnxruntime refuses it: {' '.join(str(error).split())[:300]}") from error
    return {target: torch.from_numpy(logits) for target, logits in zip(targets, outputs, strict=True)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes about single operators to itself."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
