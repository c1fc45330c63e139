"""The first two blocks of VGG19 (Simonyan and Zisserman 2014) and where their weights come from."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.errors import ConfigError, DataError
from segexp.methods.siamese.preprocessing import choose

# Names as in torchvision's vgg19, so that its files fit as they are.
SHAPES = {"0": (64, 3, 3, 3), "2": (64, 64, 3, 3), "5": (128, 64, 3, 3), "7": (128, 128, 3, 3)}
KEYS = {f"features.{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in SHAPES.items() for kind in ("weight", "bias")}
KINDS = ("file", "torchvision", "random")


class Vgg19Front(nn.Module):
    """VGG19 up to its second max-pooling; the result of both poolings are the features (Mac et al. 2020, section 2.2).

    A value of the first map sees 6x6 pixels, one of the second 16x16: deeper maps would look at far more than a lesion.

    The weights are not read before they are needed: `load` does it, or the first forward pass. Weights that come from
    a checkpoint (`load_state_dict`) are not read at all, so a finished run needs neither file nor network.

    Args:
        weights: ``torchvision``: ImageNet, from torchvision's own cache, downloaded if absent; ``file``: from
            ``file``, never from the network; ``random``: drawn, to try the machinery without ImageNet.
        file: torchvision's ``vgg19-dcbb9e9d.pth`` or what ``segexp vgg extract`` made of it.
        sha256: of the file, or the first eight digits or more of it. None: those at the end of the file's name.
        seed: of ``random``.

    Attributes:
        record: what the weights are: ``weights`` and ``sha256`` (of the eight tensors, however they are stored), for a
            file also ``file`` (its name) and ``file_sha256``. Empty before `load`.

    Raises:
        ConfigError: an unknown kind of weights, or ``file`` without a file.
    """

    def __init__(self, weights: str = "torchvision", file: str | Path | None = None, sha256: str | None = None,
                 seed: int = 0) -> None:
        super().__init__()
        choose("loss.weights", weights, KINDS)
        if weights == "file" and not file:
            raise ConfigError("loss.weights=file needs loss.weights_file, a file with the weights of VGG19")
        if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{8,64}", sha256)):
            raise ConfigError(f"loss.weights_sha256={sha256}: expected a text of 8 to 64 hexadecimal digits, in lower "
                              "case and in quotes")
        self.kind, self.file, self.digits, self.seed = weights, file, sha256, seed
        self.record: dict[str, Any] = {}
        self.ready = False
        self.features = nn.ModuleDict(
            {name: nn.Conv2d(shape[1], shape[0], 3, padding=1) for name, shape in SHAPES.items()})
        self.requires_grad_(False)

    def load(self) -> None:
        """Read or draw the weights, unless they are there already.

        Raises:
            ConfigError: the file is absent, or torchvision's can neither be found nor downloaded.
            DataError: the file is not what it should be: another hash, other tensors, not readable.
        """
        if self.ready:
            return
        if self.kind == "random":
            tensors, record = draw(self.seed), {"seed": self.seed}
        else:
            if self.kind == "torchvision":
                file = downloaded()
                tensors, digest = read(file)
            else:
                file = Path(self.file)
                tensors, digest = read(file, self.digits)
            record = {"file": file.name, "file_sha256": digest}
        self.load_state_dict(tensors)
        self.record = {"weights": self.kind, "sha256": fingerprint(tensors), **record}

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.ready = True

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> features [B, 64, H // 2, W // 2] and [B, 128, H // 4, W // 4]."""
        self.load()
        features = []
        for first, second in (("0", "2"), ("5", "7")):
            images = F.relu(self.features[first](images))
            # VGG pools after the ReLU; the maximum commutes with it, and a quarter of the work is left.
            images = F.relu(F.max_pool2d(self.features[second](images), 2))
            features.append(images)
        return features


def draw(seed: int) -> dict[str, Tensor]:
    """Return weights as torchvision initialises VGG: He-normal by fan out, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in KEYS.items():
        std = (2 / (shape[0] * 9)) ** 0.5 if len(shape) > 1 else 0.0
        tensors[key] = std * torch.randn(shape, generator=generator)
    return tensors


def read(file: Path, digits: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the front's tensors of a file with VGG19's weights, and the file's SHA-256.

    The hash is compared before anything is unpickled, and only tensors are.

    Args:
        file: a state dict of torchvision's vgg19, whole or cut down to its first tensors.
        digits: beginning of the expected SHA-256; None: the eight digits or more at the end of the file's name.

    Raises:
        ConfigError: there is no such file, or nothing says which hash it should have.
        DataError: another hash, not readable, a tensor missing or of another shape.
    """
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected the ImageNet weights of VGG19. {remedy(file)}")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    expected = digits or in_name(file)
    if expected is None:
        raise ConfigError(f"{file}: nothing says which hash it should have; its SHA-256 is {digest}. If that is the "
                          f"file you trust, set loss.weights_sha256='{digest}'")
    if not digest.startswith(expected):
        raise DataError(f"{file}: its SHA-256 is {digest}, expected {expected}{'...' * (len(expected) < 64)}: it is "
                        f"truncated, or another file. {remedy(file)}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        tensors = {key: content[key] for key in KEYS}
    except KeyError as error:
        raise DataError(f"{file} has no tensor {error}; expected torchvision's vgg19. {remedy(file)}") from error
    except Exception as error:  # whatever unpickling foreign bytes may raise
        raise DataError(f"{file} cannot be read as weights ({type(error).__name__}). {remedy(file)}") from error
    for key, shape in KEYS.items():
        found = tuple(getattr(tensors[key], "shape", ()))
        if found != shape:
            raise DataError(f"{file}: {key} has the shape {found}, expected {shape}: these are not VGG19's weights")
    return {key: tensor.float().clone() for key, tensor in tensors.items()}, digest


def remedy(file: Path) -> str:
    """Say what can be done about weights that are not there."""
    return ("Put torchvision's vgg19-dcbb9e9d.pth (548 MB), or what `segexp vgg extract` makes of it (1 MB), at "
            f"{file}, name another file with loss.weights=file loss.weights_file=FILE, or choose loss.weights=random: "
            "features that were never trained, which try the machinery but are not the paper's method")


def in_name(file: Path) -> str | None:
    """Return the digits of the hash at the end of a file's name, as torchvision writes them."""
    found = re.search("-([0-9a-f]{8,64})$", file.stem)
    return found[1] if found else None


def downloaded() -> Path:
    """Return torchvision's file, downloaded to its own cache if it is not there yet.

    Raises:
        ConfigError: it is not there and cannot be downloaded.
    """
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=in_name(file))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{file} does not exist and could not be downloaded ({error}). {remedy(file)}") from error
    return file


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the tensors' bytes (float32, in the order of ``KEYS``), however they were stored."""
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(tensors[key].detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def cut_down(file: Path, digits: str | None = None) -> tuple[str, bytes]:
    """Return name and content of a file with nothing but the front's tensors of a file with VGG19's weights.

    The name, ``vgg19_front-<digits>.pth``, ends in the first eight digits of the content's SHA-256, which `read`
    compares. Arguments and errors are those of `read`.
    """
    tensors, _ = read(file, digits)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    content = buffer.getvalue()
    return f"vgg19_front-{hashlib.sha256(content).hexdigest()[:8]}.pth", content
