"""Row 16: checkpoints and runs of strangers are refused with the reason; what they carry is never run."""

import io
import os
import pickle
import shutil
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segexp import tensors
from segexp.cli import main
from segexp.config import compose, instantiate
from segexp.config.objects import plain
from segexp.data.localizer import load_localizer
from segexp.errors import DataError, SegexpError
from segexp.methods.siamese.vgg import KEYS, draw
from segexp.methods.siamese.vgg import read as read_vgg
from tests.faults.conftest import Trained, elsewhere

Craft = Callable[[dict[str, Any], Path], bytes | dict[str, Any]]


class Payload:
    """What a pickle of it runs when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def saved(content: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **more)
    return buffer.getvalue()


def repacked(content: bytes, compression: int = zipfile.ZIP_STORED, extra: dict[str, bytes] | None = None) -> bytes:
    """Return the archive written again, with other compression and more members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
        for name, data in (extra or {}).items():
            target.writestr(name, data)
    return buffer.getvalue()


def understated(content: bytes) -> bytes:
    """Return the archive with a size in its directory that is far larger than the file."""
    buffer = bytearray(content)
    place = buffer.rfind(b"PK\x01\x02")
    buffer[place + 20 : place + 28] = (1 << 31).to_bytes(4, "little") * 2
    return bytes(buffer)


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Craft:
    def craft(good: dict[str, Any], canary: Path) -> dict[str, Any]:
        state = {name: one.clone() for name, one in good["state_dict"].items()}
        changed = change(state)
        return {**good, "state_dict": state if changed is None else changed}
    return craft


def first(state: dict[str, torch.Tensor]) -> str:
    return next(name for name, one in state.items() if one.is_floating_point() and one.ndim > 1)


def cyclic(good: dict[str, Any], canary: Path) -> dict[str, Any]:
    good = dict(good)
    good["itself"] = good
    return good


def broken_pickle(good: dict[str, Any], canary: Path) -> bytes:
    code = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


class Strange(torch.nn.Module):
    pass


REFUSED: dict[str, Craft] = {
    "payload": lambda good, canary: saved({**good, "extra": Payload(canary)}),
    "payload in the weights": lambda good, canary: saved({**good, "state_dict": {"x": Payload(canary)}}),
    "payload as hyper-parameters": lambda good, canary: saved({**good, "hyper_parameters": Payload(canary)}),
    "payload, old format": lambda good, canary: saved({**good, "x": Payload(canary)},
                                                      _use_new_zipfile_serialization=False),
    "sound, old format": lambda good, canary: saved(good, _use_new_zipfile_serialization=False),
    "plain pickle": lambda good, canary: pickle.dumps({"state_dict": {}, "x": Payload(canary)}),
    "code in an archive": broken_pickle,
    "a module": lambda good, canary: saved({**good, "network": Strange()}),
    "a function": lambda good, canary: saved({**good, "hook": print}),
    "a path": lambda good, canary: saved({**good, "where": Path("/etc")}),
    "packed bomb": lambda good, canary: repacked(saved(good), zipfile.ZIP_DEFLATED, {"a/data/99": bytes(1 << 28)}),
    "packed": lambda good, canary: repacked(saved(good), zipfile.ZIP_DEFLATED),
    "sizes beyond the file": lambda good, canary: understated(saved(good)),
    "numbers beyond the file": weights(lambda state: {**state, first(state): torch.zeros(1).expand(10**6, 10**6)}),
    "cyclic": cyclic,
    "a list": lambda good, canary: saved([1, 2]),
    "a tensor": lambda good, canary: saved(torch.zeros(3)),
    "empty": lambda good, canary: b"",
    "text": lambda good, canary: b"not a checkpoint at all\n" * 100,
    "an archive of something else": lambda good, canary: repacked(b"PK\x05\x06" + bytes(18), extra={"a.txt": b"x"}),
    "wrong shapes": weights(lambda state: {**state, first(state): torch.zeros(3, 5)}),
    "a missing tensor": weights(lambda state: [state.pop(first(state)), None][1]),
    "another tensor": weights(lambda state: {**state, "network.not_there": torch.zeros(2)}),
    "no weights": lambda good, canary: {key: value for key, value in good.items() if key != "state_dict"},
    "weights as a list": weights(lambda state: list(state.values())),
    "weights as numbers": weights(lambda state: dict.fromkeys(state, 1.0)),
    "NaN": weights(lambda state: state[first(state)].view(-1)[0].fill_(float("nan")) and None),
    "infinite": weights(lambda state: state[first(state)].view(-1)[0].fill_(float("inf")) and None),
    "complex": weights(lambda state: {**state, first(state): state[first(state)].to(torch.complex64)}),
    "whole numbers": weights(lambda state: {**state, first(state): state[first(state)].to(torch.int8)}),
    "float8": weights(lambda state: {**state, first(state): state[first(state)].to(torch.float8_e4m3fn)}),
    "double": weights(lambda state: {**state, first(state): state[first(state)].double()}),
    "sparse": weights(lambda state: {**state, first(state): state[first(state)].to_sparse()}),
    "quantised": weights(lambda state: {**state, first(state): torch.quantize_per_tensor(
        state[first(state)], 0.1, 0, torch.qint8)}),
    "meta": weights(lambda state: {**state, first(state): state[first(state)].to("meta")}),
}


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the run as a stranger would hand it over: without the hashes that we keep."""
    run = tmp_path / "outputs" / "runs" / "neuronet" / trained.run.name
    run.mkdir(parents=True)
    for name in ("run.json", "config.yaml", "split.csv"):
        shutil.copy(trained.run / name, run / name)
    (run / "checkpoints").mkdir()
    return run


def crafted(name: str, trained: Trained, run: Path, canary: Path) -> Path:
    good = tensors.load(trained.run / "checkpoints" / "last.ckpt")
    file = run / "checkpoints" / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = REFUSED[name](good, canary)
        file.write_bytes(content if isinstance(content, bytes) else saved(content))
    return file


@pytest.fixture(scope="module")
def network(trained: Trained) -> Any:
    """What the run's checkpoint is loaded into, made once."""
    from segexp.runs.directory import Run
    from segexp.runs.restore import changed_config

    return changed_config(Run(trained.run), [])


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_checkpoint_is_refused_with_the_reason(name: str, trained: Trained, copied: Path, tmp_path: Path,
                                                        network: Any) -> None:
    from segexp.runs.directory import Run
    from segexp.runs.restore import restore

    file, canary = crafted(name, trained, copied, tmp_path / "canary"), tmp_path / "canary"
    maps = {target: instantiate_map(network, target) for target in network.method.targets}
    started = time.monotonic()
    with pytest.raises(SegexpError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restore(Run(copied), network, maps)
    assert str(file) in str(caught.value) and len(str(caught.value)) < 20_000
    assert not canary.exists() and time.monotonic() - started < 20


def instantiate_map(config: Any, target: str) -> Any:
    from segexp.data.labelmap import LabelMap

    return LabelMap.from_mapping(target, plain(config.data.label_maps[target]))


@pytest.mark.parametrize("command", ["evaluate", "predict", "train"])
def test_the_commands_refuse_a_payload(command: str, trained: Trained, copied: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    canary = tmp_path / "canary"
    crafted("payload", trained, copied, canary)
    outputs = f"paths.outputs={tmp_path / 'outputs'}"
    if command == "train":  # it goes on from what it can load, which is nothing: from the beginning
        info = (copied / "run.json").read_text().replace('"status": "done"', '"status": "running"')
        (copied / "run.json").write_text(info)
        assert main(elsewhere(trained, tmp_path / "outputs")) == 0
        said = capsys.readouterr().out
        assert "cannot go on from last.ckpt" in said and "goes on from step" not in said
    else:
        image = next(trained.images.rglob("T1*.nii*"))
        more = [f"input={image}", f"output={tmp_path / 'labels'}"] if command == "predict" else []
        assert main([command, f"run={copied}", outputs, *more]) == 1
        said = capsys.readouterr().err
        assert "last.ckpt cannot be loaded as tensors and plain values" in said and "Traceback" not in said
        assert not list(tmp_path.glob("labels/**/*.nii.gz"))
    assert not canary.exists()


def test_the_payload_would_run_if_it_were_loaded(trained: Trained, copied: Path, tmp_path: Path) -> None:
    file = crafted("payload", trained, copied, tmp_path / "canary")
    torch.load(file, weights_only=False)
    assert (tmp_path / "canary").exists()


def test_cut_and_flipped_checkpoints_are_refused(trained: Trained, tmp_path: Path) -> None:
    source = trained.run / "checkpoints" / "last.ckpt"
    content = source.read_bytes()
    file = tmp_path / "last.ckpt"
    for tenth in range(10):
        file.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(tensors.TensorFileError, match=str(file)):
            tensors.load(file)
    shutil.copy(tensors.hash_file(source), tensors.hash_file(file))
    file.write_bytes(content)
    assert tensors.load(file)["global_step"] == 6
    for position in range(0, len(content), len(content) // 40):
        flipped = bytearray(content)
        flipped[position] ^= 16
        file.write_bytes(flipped)
        with pytest.raises(tensors.TensorFileError):
            tensors.load(file)


def test_names_in_a_checkpoint_are_never_called(trained: Trained, copied: Path, tmp_path: Path) -> None:
    """Lightning makes objects of what `_instantiator` and hyper-parameters name; a checkpoint's are passed over."""
    good = tensors.load(trained.run / "checkpoints" / "last.ckpt")
    good |= {"hyper_parameters": {"_instantiator": "os.system", "_target_": "os.system", "_class_path": "os.system",
                                  "command": f"touch {tmp_path / 'canary'}"}, "_instantiator": "os.system"}
    (copied / "checkpoints" / "last.ckpt").write_bytes(saved(good))
    assert main(["evaluate", f"run={copied}", f"paths.outputs={tmp_path / 'outputs'}"]) == 0
    assert not (tmp_path / "canary").exists()


CONFIGURATIONS: dict[str, Callable[[dict[str, Any], Path], str]] = {
    "target": lambda config, canary: yaml.safe_dump({**config, "network": {"_target_": "os.system",
                                                                           "command": f"touch {canary}"}}),
    "target in a list": lambda config, canary: yaml.safe_dump(
        {**config, "loss": {**config["loss"], "x": [{"_target_": "builtins.open", "_args_": [str(canary), "w"]}]}}),
    "function of ours": lambda config, canary: yaml.safe_dump(
        {**config, "optimizer": {"_target_": "segexp.phantoms.wmh.write", "_partial_": True, "folder": str(canary)}}),
    "environment": lambda config, canary: yaml.safe_dump({**config, "seed": "${oc.env:HOME}"}),
    "broken interpolation": lambda config, canary: yaml.safe_dump({**config, "tag": "${"}),
    "tag": lambda config, canary: yaml.safe_dump(config) + f"x: !!python/object/apply:os.system ['touch {canary}']\n",
    "bomb": lambda config, canary: yaml.safe_dump(config) + "a0: &a0 [x, x]\n" + "".join(
        f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)),
    "a list": lambda config, canary: "- 1\n",
    "nothing": lambda config, canary: "",
    "no network": lambda config, canary: yaml.safe_dump({key: config[key] for key in config if key != "network"}),
    "numbers": lambda config, canary: yaml.safe_dump({**config, "network": 5, "data": [1]}),
    "not UTF-8": lambda config, canary: "\udcff: 1\n",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_configuration_of_a_strangers_run_is_refused(name: str, trained: Trained, copied: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(trained.run / "checkpoints" / "last.ckpt", copied / "checkpoints" / "last.ckpt")
    config = yaml.safe_load((trained.run / "config.yaml").read_text())
    text = CONFIGURATIONS[name](config, tmp_path / "canary")
    (copied / "config.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    outputs = f"paths.outputs={tmp_path / 'outputs'}"
    image = next(trained.images.rglob("T1*.nii*"))
    for words in (["evaluate"], ["predict", f"input={image}", f"output={tmp_path / 'labels'}"]):
        code = main([*words, f"run={copied}", outputs])
        said = capsys.readouterr().err
        assert code in (1, 2, 3) and "unexpected error" not in said and "Traceback" not in said, said
    assert not (tmp_path / "canary").exists()


@pytest.fixture(scope="module")
def localizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a localiser with random weights."""
    run = tmp_path_factory.mktemp("localizer")
    config = compose("train", ["experiment=kidney_ppm/localizer", "scale=smoke", "data.root=/x"])
    (run / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    network = instantiate(config.network)
    state = {f"network.{name}": one for name, one in network.state_dict().items()}
    tensors.save({"state_dict": state, "KidneyCTA": {"intensity_mean": 0.1}}, run / "checkpoints" / "last.ckpt")
    load_localizer(run)
    return run


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "another tensor"])
def test_a_localiser_of_a_stranger_is_refused(name: str, localizer: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(localizer / "config.yaml", run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = REFUSED[name](tensors.load(localizer / "checkpoints" / "last.ckpt"), tmp_path / "canary")
        (run / "checkpoints" / "last.ckpt").write_bytes(content if isinstance(content, bytes) else saved(content))
        with pytest.raises(DataError, match=str(run)):
            load_localizer(run)
    assert not (tmp_path / "canary").exists()


def test_vgg_weights_of_a_stranger_are_refused_also_under_their_own_hash(tmp_path: Path) -> None:
    import hashlib

    good, payload = draw(0), Payload(tmp_path / "canary")
    for name, content in (("payload", saved({**good, "x": payload})), ("pickle", pickle.dumps(payload)),
                          ("old", saved({**good, "x": payload}, _use_new_zipfile_serialization=False)),
                          ("shapes", saved({**good, next(iter(KEYS)): torch.zeros(1)})),
                          ("numbers", saved(dict.fromkeys(KEYS, 1.0))), ("list", saved([1])), ("empty", b""),
                          ("ordered", saved(OrderedDict(x=payload)))):
        file = tmp_path / f"vgg-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        file.write_bytes(content)
        with pytest.raises(DataError, match=str(file)):
            read_vgg(file)
        assert not (tmp_path / "canary").exists(), name
    file.write_bytes(saved(good))
    with pytest.raises(DataError, match="expected"):
        read_vgg(file)  # a sound file under another hash
