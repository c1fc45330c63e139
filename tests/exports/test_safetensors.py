"""Weights without code, and that damage is found."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from segexp.cli import main
from segexp.exports import safetensors
from segexp.exports.export import RECORD
from segexp.exports.parity import ParityError
from segexp.exports.subject import subject_of
from segexp.runs import get_run
from tests.exports.conftest import words


@pytest.mark.parametrize("name", ["nn_tissue", "dice", "fcn_ppm", "trained_siamese"])
def test_weights_and_description_say_everything_but_where_they_were_made(
        outputs: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    run = get_run(outputs, f"{name}-seed1")
    folder = run.path / "exports" / "safetensors"
    shutil.rmtree(folder, ignore_errors=True)
    assert main(words(outputs, name, "safetensors")) == 0
    assert "bit for bit" in capsys.readouterr().out
    kept = torch.load(run.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}
    # Only the network that labels images: no loss, no VGG19, no discriminator.
    assert set(found) == {key.removeprefix("network.") for key in kept if key.startswith("network.")}
    assert all(torch.equal(value, kept[f"network.{key}"]) for key, value in found.items())
    text = (folder / "model.json").read_text()
    assert str(outputs) not in text and "/" + outputs.parts[1] + "/" not in text
    described = json.loads(text)
    assert described["run"] == run.id and described["synthetic_data"] is True and described["segexp"]
    for target, one in described["targets"].items():
        assert [entry["index"] for entry in one["classes"]] == list(range(len(one["classes"]))), target
        assert one["classes"][0]["name"] == "background"
    if name == "fcn_ppm":  # learnt from the training data, in no configuration
        assert 0 < described["input"]["intensity"]["mean"] < 1
    assert main(words(outputs, name, "safetensors")) == 0
    assert "is there already and every file is as it was written" in capsys.readouterr().out


def test_native_values_of_a_tool_are_kept(outputs: Path) -> None:
    main(words(outputs, "nn_tissue", "safetensors"))
    described = json.loads((get_run(outputs, "nn_tissue-seed1").path / "exports/safetensors/model.json").read_text())
    assert [entry["value"] for entry in described["targets"]["malp_em_tissue"]["classes"]] == [0, 1, 2, 3, 4, 5]
    assert described["input"]["intensity"]["_target_"].endswith("ZScore")


def test_every_flipped_bit_of_a_weight_is_found(outputs: Path, tmp_path: Path) -> None:
    subject = subject_of(get_run(outputs, "dice-seed1"))
    safetensors.write(subject, tmp_path)
    assert safetensors.check(subject, tmp_path)["max_abs_difference"] == 0
    file = tmp_path / "model.safetensors"
    good = file.read_bytes()
    for place in (len(good) - 1, len(good) - 4001, len(good) // 2):
        bad = bytearray(good)
        bad[place] ^= 1
        file.write_bytes(bad)
        with pytest.raises(ParityError, match="bit for bit"):
            safetensors.check(subject, tmp_path)
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(ParityError, match="cannot be read"):
        safetensors.check(subject, tmp_path)


def test_a_damaged_export_is_named_and_made_again(outputs: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "export"
    assert main(words(outputs, "dice", "safetensors", f"output={target}")) == 0
    file = target / "model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert main(words(outputs, "dice", "safetensors", f"output={target}")) == 0
    assert "replaced: model.safetensors is damaged" in capsys.readouterr().out
    assert file.read_bytes() == good
    record = json.loads((target / RECORD).read_text())
    (target / RECORD).write_text(json.dumps(record | {"checkpoint_sha256": "0" * 64}))
    assert main(words(outputs, "dice", "safetensors", f"output={target}")) == 0
    assert "replaced: it was made with checkpoint_sha256=0000" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_failed_check_leaves_nothing(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture) -> None:
    import safetensors.torch as library

    real = library.save_file

    def careless(tensors: dict, path: Path, metadata: dict) -> None:
        real({key: value + 1 if key == "head.weight" else value for key, value in tensors.items()}, path, metadata)

    monkeypatch.setattr(library, "save_file", careless)
    assert main(words(outputs, "dice", "safetensors", f"output={tmp_path}/out")) == 1
    assert "head.weight is not what the run has" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("more", "message"), [
    (["format=safetensor"], "did you mean safetensors?"), (["run=nobody"], "there is no such run"),
    (["size=[8,8]"], "size=[8, 8] is for format=onnx"),
])
def test_mistakes_are_answered(outputs: Path, more: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    given = {word.partition("=")[0]: word for word in [*words(outputs, "dice", "safetensors")[1:], *more]}
    assert main(["export", *given.values()]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_export_is_never_overwritten(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    assert main(words(outputs, "dice", "safetensors", f"output={tmp_path}")) == 2
    assert "holds something that is no export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_is_not_done_is_refused_with_its_command(outputs: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    done = get_run(outputs, "dice-seed1")
    copy = tmp_path / "runs" / "siamese" / done.id
    shutil.copytree(done.path, copy)
    state = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(state | {"status": "running", "command": "segexp train again"}))
    assert main(["export", f"run={copy}", "format=safetensors"]) == 1
    error = capsys.readouterr().err
    assert "is interrupted, not done" in error and "segexp train again" in error
