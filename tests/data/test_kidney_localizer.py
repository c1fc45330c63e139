from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from segexp.data.intensity import Window
from segexp.data.localizer import NetworkRegions, case_of, label_scan, load_localizer, localise
from segexp.data.nifti import write_labels
from segexp.data.regions import Frame, LabelRegions
from segexp.errors import ConfigError, DataError
from tests.data.kidneys import SPACING, Folder, abdomen, as_kits, kits_affine, reports, write

WINDOW = Window(-200, 500, 0.3)
FRAME = Frame(size=24, margin_mm=20)
STEPS = 40


class Threshold(nn.Module):
    """Takes for kidney what is brighter than 70 HU: every kidney of the helper's CTs, exactly."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes

    def forward(self, image):
        hu = (image + WINDOW.mean) * 700 - 200
        return {"organ": torch.cat([-(hu - 70)] + [hu - 70] * (self.classes - 1), 1)}


@pytest.mark.parametrize("grid", [5.0, 10.0, 4.0])
def test_kidneys_are_found_on_both_sides(grid):
    image, _ = abdomen({"left": 3})
    found = localise(image, SPACING, Threshold(), WINDOW, FRAME, grid, least_ml=20)
    expected = {"left": (18, 20, 20), "right": (42, 20, 22)}
    assert [region.side for region in found] == ["left", "right"]
    for region in found:
        assert region.size[:2] == (24, 24) and 0.5 < region.score <= 1
        box = [(a, a + n) for a, n in zip(region.start, region.size, strict=True)]
        assert all(a <= c - 6 and c + 6 < b for (a, b), c in zip(box, expected[region.side], strict=True))


def test_on_its_own_grid_the_finder_gives_what_the_labels_give(tmp_path):
    folder = Folder(tmp_path)
    folder.add("a", *abdomen({"left": 3, "right": 3}))
    image, _ = abdomen({"left": 3, "right": 3})
    truth = reports(folder, roi=LabelRegions(size=24, every_kidney=True))
    found = localise(image, SPACING, Threshold(3), WINDOW, FRAME, 5.0)
    for region in found:
        expected = truth[f"a_{region.side}"].case.placement.region
        assert (region.start, region.size) == (expected.start, expected.size)


def test_small_parts_are_no_kidneys():
    image, labels = abdomen()
    image[labels > 0] = 30
    image[10:13, 20:23, 20:23] = 200  # 3.4 ml
    assert localise(image, SPACING, Threshold(), WINDOW, FRAME, 5.0) == []
    assert [one.side for one in localise(image, SPACING, Threshold(), WINDOW, FRAME, 5.0, least_ml=3)] == ["left"]


def test_a_whole_ct_goes_in_and_labels_on_its_own_grid_come_out(tmp_path):
    """Stored as KiTS stores it: slices first, pointing down. The labels must overlay the file."""
    image, _ = abdomen({"left": 3})
    path = write(tmp_path / "ct.nii.gz", as_kits(image), kits_affine(SPACING))

    class Finder:
        every_kidney, frame, key = False, FRAME, ""

        def boxes(self, scan):
            return localise(scan.voxels, scan.spacing, Threshold(), WINDOW, FRAME, 5.0)

    shapes = []

    def label(part):
        shapes.append(tuple(part.shape))
        hu = (part[0] + WINDOW.mean) * 700 - 200
        return {"kidney": ((hu > 70).to(torch.uint8) + (hu > 150).to(torch.uint8))}

    labels, source = label_scan(path, label, WINDOW, Finder())
    assert len(shapes) == 2 and all(shape[:4] == (1, 1, 24, 24) for shape in shapes)
    np.testing.assert_array_equal(labels["kidney"], (image > 70).astype(np.uint8) + (image > 150))
    write_labels(tmp_path / "out.nii.gz", labels["kidney"], source)
    out, stored = nib.load(tmp_path / "out.nii.gz"), nib.load(path)
    np.testing.assert_allclose(out.affine, stored.affine)
    np.testing.assert_array_equal(np.asarray(out.dataobj) > 0, np.asarray(stored.dataobj) > 70)
    # Worked on at another voxel size, the labels still lie on the file's grid.
    fine, _ = label_scan(path, label, WINDOW, Finder(), resample=[5, 5, 2.5])
    assert fine["kidney"].shape == image.shape
    overlap = 2 * ((fine["kidney"] > 0) & (image > 70)).sum() / ((fine["kidney"] > 0).sum() + (image > 70).sum())
    assert overlap > 0.95
    # An image that is cut already needs no finder.
    whole, _ = label_scan(path, label, WINDOW)
    np.testing.assert_array_equal(whole["kidney"] > 0, image > 70)


def test_an_image_without_a_kidney_is_an_error(tmp_path):
    image, labels = abdomen()
    image[labels > 0] = 30
    path = write(tmp_path / "ct.nii.gz", image, np.diag([*SPACING, 1.0]))

    class Finder:
        every_kidney, frame, key = False, FRAME, ""

        def boxes(self, scan):
            return localise(scan.voxels, scan.spacing, Threshold(), WINDOW, FRAME, 5.0)

    with pytest.raises(DataError, match="no kidney was found"):
        label_scan(path, None, WINDOW, Finder())
    write(path, image.astype(np.int16) + 2000, np.diag([*SPACING, 1.0]))
    with pytest.raises(DataError, match="are they in HU"):
        label_scan(path, None, WINDOW)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's directory with a network that has learned, in a few seconds, where kidneys are."""
    from segexp.methods.kidney_ppm import UNet3D

    torch.manual_seed(0)
    options = {"targets": {"organ": 2}, "features": [8, 8, 8, 8, 8, 8], "norm": "instance"}
    network = UNet3D(**options)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    mean, half = 0.2, slice(None, None, 2)
    for step in range(STEPS):
        image, labels = (array[half, half, half] for array in abdomen(
            {"left": 3}, seed=step, shift=(step % 5 - 2, 0, step % 3)))
        logits = network(torch.from_numpy(Window(-200, 500, mean)(image))[None, None])["organ"]
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels > 0).long()[None],
                                           weight=torch.tensor([0.2, 1.0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run = tmp_path_factory.mktemp("run")
    (run / "checkpoints").mkdir()
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
                "KidneyCTA": {"intensity_mean": mean}}, run / "checkpoints" / "last.ckpt")
    (run / "config.yaml").write_text(yaml.safe_dump({
        "network": {"_target_": "segexp.methods.kidney_ppm.UNet3D", **options},
        "data": {"resample": [10, 10, 10], "view": "whole",
                 "intensity": {"_target_": "segexp.data.intensity.Window", "low": -200, "high": 500, "mean": "auto"}}}))
    return run


def test_a_trained_run_gives_the_regions_of_labelled_and_of_new_cts(tmp_path, trained):
    assert load_localizer(trained).intensity == Window(-200, 500, 0.2)
    assert load_localizer(trained).grid == 10
    folder = Folder(tmp_path)
    folder.add("a", *abdomen({"right": 3}, seed=9))
    finder = NetworkRegions(trained, size=24)
    placement = reports(folder, roi=finder)["a"].case.placement
    assert placement.region.side == "right" and placement.recall > 0.95 and placement.region.score > 0.5
    # What was found is kept: the second time the network is not asked.
    again = NetworkRegions(trained, size=24)
    assert reports(folder, roi=again)["a"].case.placement.region == placement.region and again.trained is None
    path = write(tmp_path / "new.nii.gz", abdomen(seed=11)[0], np.diag([*SPACING, 1.0]))
    labels, _ = label_scan(path, lambda part: {"kidney": torch.ones(part.shape[2:])[None]}, WINDOW, finder)
    assert labels["kidney"][18, 20, 20] == labels["kidney"][42, 20, 22] == 1 and labels["kidney"].mean() < 0.9


def test_a_kidney_that_the_network_misses_scores_zero_on_the_ct(tmp_path, trained):
    from segexp.data.labelmap import LabelMap
    from segexp.metrics import Scorer

    folder = Folder(tmp_path)
    image, labels = abdomen({"right": 3})
    image[30:][labels[30:] > 0] = 30  # as dark as its surroundings
    folder.add("a", image, labels)
    case = reports(folder, roi=NetworkRegions(trained, size=24))["a"].case
    assert case.placement.region.score == 0 and case.placement.recall == 0
    label_map = LabelMap("kidney", (0, 1, 2), ("background", "kidney", "tumor"))
    rows = case.placement.rows({"kidney": case.targets["kidney"].whole()}, Scorer(["dice"]), {"kidney": label_map}, "a")
    assert [row["value"] for row in rows] == [0, 0, 0] and all(row["defined"] for row in rows)


def test_a_folder_without_a_trained_network_says_so(tmp_path, trained):
    with pytest.raises(DataError, match="no trained localiser there"):
        load_localizer(tmp_path)
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["data"]["resample"] = None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "checkpoints").symlink_to(trained / "checkpoints")
    with pytest.raises(DataError, match="expected three equal edges"):
        load_localizer(tmp_path)


def test_a_run_may_be_named_by_its_beginning(tmp_path, trained):
    for name in ("find-seed1-aa", "find-seed10-bb", "find-seed2-cc", "find-seed2-dd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoints").symlink_to(trained / "checkpoints")
    (tmp_path / "find-seed1-failed").mkdir()
    assert NetworkRegions(tmp_path / "find-seed1").run.name == "find-seed1-aa"
    with pytest.raises(ConfigError, match="find-seed2-cc, find-seed2-dd"):
        NetworkRegions(tmp_path / "find-seed2")
    with pytest.raises(ConfigError, match="there is none"):
        NetworkRegions(tmp_path / "find-seed3")
    with pytest.raises(DataError, match="no trained localiser there"):
        print(NetworkRegions(tmp_path).key)


def test_files_belong_to_their_case():
    assert case_of(Path("/data/case_00001/imaging.nii.gz")) == case_of(Path("/out/case_00001.nii.gz")) == "case_00001"
