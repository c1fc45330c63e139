"""ONNX graphs: run by onnxruntime, sizes free where the network permits, wrong ones refused."""

from importlib import util
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import nn

from segexp.cli import main
from segexp.exports import onnx as export
from segexp.exports.parity import ParityError, compare, logits_of, sample
from segexp.exports.subject import Subject, subject_of
from segexp.methods.kidney_ppm import FCNPPM, DynUNet, PSPNet2D, UNet3D
from segexp.runs import get_run
from tests.exports.conftest import words

OTHER = {"nn_tissue": (1, 1, 40, 24, 56), "dice": (3, 1, 45, 37), "fcn_ppm": (1, 1, 64, 128, 64)}


def subject(network: nn.Module, shape: tuple[int, ...], size: tuple[int, ...] | None = None) -> Subject:
    network = network.eval()
    return Subject(SimpleNamespace(id="made-up"), None, SimpleNamespace(network=network), None, shape, size, (),
                   logits_of(network, sample(shape)), {})


@pytest.mark.parametrize("name", list(OTHER))
def test_a_trained_network_runs_at_sizes_it_was_not_traced_with(outputs: Path, tmp_path: Path, name: str,
                                                                capsys: pytest.CaptureFixture) -> None:
    assert main(words(outputs, name, "onnx", f"output={tmp_path}/graph")) == 0
    assert "100.0000% of the labels the same" in capsys.readouterr().out
    network = subject_of(get_run(outputs, f"{name}-seed1")).network
    image = sample(OTHER[name])
    expected = logits_of(network, image)
    parity = compare(export.run(tmp_path / "graph" / "model.onnx", image, list(expected)), expected)
    assert parity.close and parity.difference < 1e-4
    assert main(words(outputs, name, "onnx", f"output={tmp_path}/graph")) == 0
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize(("network", "shape", "sizes"), [
    (lambda: UNet3D({"k": 3}, features=[4, 4, 8, 8, 8, 4]), (1, 1, 32, 32, 48), ["multiple of 16"] * 3),
    (lambda: DynUNet({"k": 3}, features=[4, 8, 8]), (1, 1, 16, 20, 24), ["multiple of 4"] * 3),
    (lambda: PSPNet2D({"k": 3}, layers=[1, 1, 1, 1], width=8, branch=8, head=8), (1, 1, 33, 35, 20), [33, 35, "any"]),
], ids=["unet3d", "dynunet", "pspnet2d"])
def test_the_baselines_export_too(tmp_path: Path, network: object, shape: tuple[int, ...], sizes: list) -> None:
    one = subject(network(), shape)
    export.write(one, tmp_path)
    record = export.check(one, tmp_path)
    assert record["sizes"] == sizes and record["label_agreement"] == 1 and record["max_abs_difference"] < 1e-4


def test_a_size_that_the_user_fixes_is_kept_to_the_voxel(outputs: Path, tmp_path: Path) -> None:
    """37 x 30 x 21 voxels: the network pads, and cells of its pyramid are cut off, inside the graph."""
    network = FCNPPM({"k": 3}, stem=4, c1=8, c2=8, blocks=[1, 1, 1], dilations=[2], ppm_kernels=[2, 4], ppm_branch=4)
    one = subject(network, (1, 1, 37, 30, 21), size=(37, 30, 21))
    export.write(one, tmp_path)
    assert export.check(one, tmp_path)["sizes"] == [37, 30, 21]
    graph = onnx.load(tmp_path / "model.onnx")
    assert [axis.dim_value for axis in graph.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 37, 30, 21]
    assert main(words(outputs, "dice", "onnx", "size=[40,33]", f"output={tmp_path}/graph")) == 0
    assert main(words(outputs, "dice", "onnx", "size=[40,33,8]", f"output={tmp_path}/other")) == 2


def test_a_wrong_graph_is_refused_and_nothing_is_left(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture) -> None:
    real = torch.onnx.export

    def wrong(program: object, *more: object, **settings: object) -> None:
        next(iter(program.state_dict.values())).add_(0.05)
        real(program, *more, **settings)

    monkeypatch.setattr(torch.onnx, "export", wrong)
    assert main(words(outputs, "dice", "onnx", f"output={tmp_path}/graph")) == 1
    assert "model.onnx differs from the run's network by up to" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_graph_is_found(tmp_path: Path) -> None:
    one = subject(UNet3D({"k": 2}, features=[4, 4, 4, 4, 4, 4]), (1, 1, 32, 32, 32))
    export.write(one, tmp_path)
    file = tmp_path / "model.onnx"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(ParityError, match="onnxruntime refuses it"):
        export.check(one, tmp_path)


def test_a_network_without_a_graph_says_why(tmp_path: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"k": image * 2 if image.sum() > 0 else image}

    with pytest.raises(ParityError, match="Undecided cannot be written as ONNX"):
        export.write(subject(Undecided(), (1, 1, 8, 8, 8)), tmp_path)


def test_the_missing_extra_is_named(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture) -> None:
    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "onnxruntime" else real(name, *more))
    assert main(words(outputs, "dice", "onnx", f"output={tmp_path}/graph")) == 2
    assert "format=onnx needs onnxruntime, which is not installed" in (error := capsys.readouterr().err)
    assert "pip install 'segexp[onnx]'" in error and not (tmp_path / "graph").exists()
