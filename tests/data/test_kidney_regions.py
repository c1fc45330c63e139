import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segexp.data.kidneys import Kidney, Parts, middle_of_body
from segexp.data.labelmap import LabelMap
from segexp.data.regions import Frame, LabelRegions, PrecomputedRegions, Scan, chosen, missed
from segexp.data.views import AIR
from segexp.errors import ConfigError, DataError
from segexp.metrics import Scorer
from tests.data.kidneys import SHAPE, SPACING, Folder, abdomen, ball, reports, write

MAP = {"kidney": LabelMap("kidney", (0, 1, 2), ("background", "kidney", "tumor"))}


@pytest.fixture
def native(tmp_path):
    return Folder(tmp_path)


def scores(rows):
    return {(row["structure"], row["metric"]): row["value"] for row in rows}


def world(affine, voxel):
    return np.asarray(affine) @ [*voxel, 1]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_window_stays_inside_and_holds_what_fits(data):
    shape = tuple(data.draw(st.integers(8, 60)) for _ in range(3))
    low = tuple(data.draw(st.integers(0, n - 2)) for n in shape)
    high = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True))
    focus = tuple(data.draw(st.floats(a, b - 1)) for a, b in zip(low, high, strict=True))
    edge, margin = data.draw(st.integers(1, 70)), data.draw(st.integers(0, 30))
    start, size = Frame(size=edge, margin_mm=margin).around(
        Kidney("left", low, high, focus, 1.0, 1.0), shape, (1.0, 1.0, 1.0))
    assert size[:2] == (edge, edge)
    for axis in (0, 1):
        first, last = start[axis], start[axis] + edge
        if edge <= shape[axis]:
            assert 0 <= first and last <= shape[axis]
        else:
            assert first <= 0 and last >= shape[axis] and abs(-first - (last - shape[axis])) <= 1
        if high[axis] - low[axis] <= edge:
            assert first <= low[axis] and high[axis] <= last
        else:
            assert first <= round(focus[axis]) <= last and low[axis] <= first and last <= high[axis]
    assert start[2] == max(low[2] - margin, 0) and start[2] + size[2] == min(high[2] + margin, shape[2])


def test_windows_in_mm_have_the_same_extent_on_any_grid():
    kidney = Kidney("left", (40, 40, 40), (60, 60, 60), (50, 50, 50), 1.0, 1.0)
    frame = Frame("mm", 97.5, 20)
    assert frame.around(kidney, (200, 200, 200), (0.65, 0.65, 1.0))[1] == (150, 150, 60)
    assert frame.around(kidney, (200, 200, 200), (0.8, 0.75, 5.0))[1] == (122, 130, 28)
    assert Frame("px", 150).around(kidney, (200, 200, 200), (0.8, 0.75, 5.0))[1] == (150, 150, 28)


@pytest.mark.parametrize("options", [{"unit": "cm"}, {"size": 0}, {"size": 1.5}, {"margin_mm": -1}])
def test_senseless_windows_are_refused(options):
    with pytest.raises(ConfigError, match=r"data\.roi"):
        LabelRegions(**options)


@pytest.mark.parametrize("origin", [(0, 0, 0), (-500, 300, 0), (900, 0, -70)])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("flipped", [False, True])
def test_sides_are_the_patients_wherever_the_origin_lies(native, origin, side, flipped):
    image, labels = abdomen({side: 3})
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = origin
    if flipped:  # stored right to left
        image, labels = image[::-1], labels[::-1]
        affine[0, 0], affine[0, 3] = -SPACING[0], origin[0] + (SHAPE[0] - 1) * SPACING[0]
    for what, array in (("image", image), ("label", labels)):
        write(native.path("a", what), np.ascontiguousarray(array), affine)
    assert reports(native)["a"].case.placement.region.side == side


def test_the_body_is_what_is_large_and_no_table(native):
    image, _ = abdomen()
    table = image.copy()
    table[:12, :2] = 400
    assert middle_of_body(image, SPACING) == pytest.approx(29.5, abs=0.3)
    assert middle_of_body(table, SPACING) == pytest.approx(29.5, abs=0.3)
    assert middle_of_body(np.full((9, 4, 4), -1000), (1, 1, 1)) == 4
    fine = np.kron(image, np.ones((4, 4, 4), np.int16))
    assert middle_of_body(fine, (1.25, 1.25, 1.25)) == pytest.approx(4 * 29.5 + 1.5, abs=1.5)


def test_one_region_per_patient_is_that_of_the_largest_tumour(native):
    native.add("a", *abdomen({"left": 2, "right": 3}))
    found = reports(native)
    assert list(found) == ["a"] and found["a"].case.placement.region.side == "right"
    both = reports(native, roi=LabelRegions(size=24, every_kidney=True))
    assert {name: one.case.placement.region.side for name, one in both.items()} == {"a_left": "left",
                                                                                  "a_right": "right"}
    # Volumes come from the affine: of 5 mm voxels, 8 make a millilitre.
    _, labels = abdomen({"right": 3})
    right = Parts(labels, (0, 0, 0), SPACING, 29.5, 2).kidney("right")
    assert right.tumor_ml == pytest.approx((labels == 2).sum() * 0.125)


def test_kidneys_that_touch_are_one_part_around_the_tumour(native):
    image, labels = abdomen({"left": 3})
    bridge = np.zeros(SHAPE, bool)
    bridge[20:41, 18:21, 18:21] = True
    labels[bridge & (labels == 0)] = 1
    image[bridge] = 200
    native.add("a", image, labels)
    report = reports(native)["a"]
    region = report.case.placement.region
    assert report.case.targets["kidney"].counts[2] == (labels == 2).sum()  # all of the tumour, not the middle
    assert region.size[0] == 24 and "lie outside the region" in report.reason


def test_specks_do_not_stretch_a_region_but_are_missed_by_it(native):
    image, labels = abdomen({"left": 3})
    plain = reports_of(native, "plain", image, labels)
    labels[20, 20, 2] = 1
    spotted = reports_of(native, "spotted", image + 1, labels)
    assert spotted.case.placement.region == plain.case.placement.region
    assert plain.case.placement.recall == 1 and 0.99 < spotted.case.placement.recall < 1


def reports_of(folder, name, image, labels, **changes):
    folder.add(name, image, labels)
    return reports(folder, **changes)[name]


def test_a_region_at_the_border_is_whole_and_its_voxels_stay_where_they_are(native):
    image, labels = abdomen({"left": 3}, shift=(-17, 0, 0))
    image[2, 22, 20] = 1500
    native.add("a", image, labels)
    case = reports(native)["a"].case
    start = case.placement.region.start
    assert start[0] == 0 and case.image.shape[:2] == (24, 24)
    marked = tuple(int(v) for v in np.argwhere(case.image.array() == 1500)[0])
    np.testing.assert_allclose(world(case.image.affine, marked),
                               world(np.array(nib.load(native.path("a", "image")).affine), (2, 22, 20)))
    np.testing.assert_allclose(case.targets["kidney"].affine, case.image.affine)
    # Pasting back what was cut out gives the CT again, inside the region.
    pasted = case.placement.paste(case.targets["kidney"].whole())
    box = tuple(slice(a, a + n) for a, n in zip(start, case.image.shape, strict=True))
    assert pasted.shape == labels.shape
    np.testing.assert_array_equal(pasted[box], labels[box])
    pasted[box] = 0
    assert not pasted.any()


def test_a_ct_smaller_than_the_window_lies_in_air(native):
    image, labels = abdomen({"left": 3})
    native.add("a", image, labels)
    case = reports(native, roi=LabelRegions(size=70))["a"].case
    assert case.placement.region.start[:2] == (-5, -13) and case.image.shape[:2] == (70, 70)
    voxels, classes = case.image.array(), case.targets["kidney"].whole()
    assert (voxels[:5] == AIR).all() and (voxels[-5:] == AIR).all() and (voxels[:, :13] == AIR).all()
    assert not classes[:5].any() and (classes == 2).sum() == (labels == 2).sum()
    slices = slice(case.placement.region.start[2], None)
    np.testing.assert_array_equal(voxels[5:65, 13:57], image[..., slices][..., : voxels.shape[2]])
    expected = labels.copy()
    expected[..., : case.placement.region.start[2]] = 0
    expected[..., case.placement.region.start[2] + case.image.shape[2] :] = 0
    np.testing.assert_array_equal(case.placement.paste(classes), expected)
    # Crops see the same air: exactly what the window maps -1024 HU to.
    assert case.image.crop((0, 0, 0), (5, 70, 3)) == pytest.approx(0)
    assert (case.targets["kidney"].crop((-2, 0, 0), (4, 1, 1)).ravel() == [-100, -100, 0, 0]).all()


def test_what_the_window_misses_is_missed_on_the_ct_only(native):
    """A kidney that crosses the window: a perfect prediction is perfect inside, not on the CT."""
    image, labels = abdomen({"left": 3})
    native.add("a", image, labels)
    case = reports(native, roi=LabelRegions(size=9))["a"].case
    prediction = {"kidney": case.targets["kidney"].whole()}
    scorer = Scorer(["dice"])
    inside = scores(scorer(prediction, prediction, MAP, case.image.spacing, case.id))
    on_ct = scores(case.placement.rows(prediction, scorer, MAP, case.id))
    own = labels.copy()
    own[30:] = 0  # the other kidney is not judged
    found = {label: int((prediction["kidney"] == label).sum()) for label in (1, 2)}
    for label, name in ((1, "kidney"), (2, "tumor")):
        total = int((own == label).sum())
        assert inside[name, "dice"] == 1
        assert on_ct[name, "dice_ct"] == pytest.approx(2 * found[label] / (found[label] + total))
    assert on_ct["kidney", "dice_ct"] < 1
    recall = sum(found.values()) / int((own > 0).sum())
    assert on_ct["", "roi_recall"] == pytest.approx(recall) and case.placement.recall == pytest.approx(recall)
    # A window that holds the kidney has the same scores in both places.
    large = reports(native)["a"].case
    prediction = {"kidney": large.targets["kidney"].whole()}
    assert set(scores(large.placement.rows(prediction, scorer, MAP, "a")).values()) == {1.0}


def test_surface_distances_on_the_ct_see_the_organ_beyond_the_window(native):
    """The plane of the cut counts as surface in both maps inside the region; on the CT the truth goes on."""
    image, labels = abdomen({"left": 3})
    native.add("a", image, labels)
    case = reports(native, roi=LabelRegions(size=9))["a"].case
    prediction = {"kidney": case.targets["kidney"].whole()}
    scorer = Scorer(["assd"])
    inside = scores(scorer(prediction, prediction, MAP, case.image.spacing, case.id))
    on_ct = scores(case.placement.rows(prediction, scorer, MAP, case.id))
    assert inside["kidney", "assd"] == 0 and on_ct["kidney", "assd_ct"] > 1


def test_regions_from_a_file_are_taken_as_they_are(native):
    image, labels = abdomen({"left": 3, "right": 2})
    native.add("a", image, labels)
    path = native.root / "rois.json"
    entry = {"side": "left", "start_zyx": [4, 8, 6], "size_zyx": [30, 24, 22], "score": 0.9, "method": "atlas"}
    other = {"side": "right", "start_zyx": [6, 8, 30], "size_zyx": [28, 24, 24]}
    path.write_text(json.dumps({"a": [entry, other]}))
    found = reports(native, roi=PrecomputedRegions())
    assert list(found) == ["a_left", "a_right"] or list(found) == ["a_right", "a_left"]
    left, right = (found[f"a_{side}"].case.placement.region for side in ("left", "right"))
    assert (left.start, left.size, left.score) == ((6, 8, 4), (22, 24, 30), 0.9)
    assert (right.start, right.size, right.score) == ((30, 8, 6), (24, 24, 28), 1.0)
    assert found["a_left"].case.person == found["a_right"].case.person == "a"
    # In voxels of the file, also when the image is resampled.
    fine = reports(native, roi=PrecomputedRegions(), resample=[5, 2.5, 10])["a_left"].case.placement.region
    assert (fine.start, fine.size) == ((6, 16, 2), (22, 48, 15))


@pytest.mark.parametrize(("content", "words"), [
    ("{", "cannot be read"), ("[]", "expected a mapping"), ('{"b": []}', "no region for a"),
    ('{"a": [{"side": "left"}]}', "cannot be read"),
    ('{"a": [{"start_zyx": [0, 0], "size_zyx": [1, 1]}]}', "three numbers each"),
    ('{"a": [{"start_zyx": [90, 0, 0], "size_zyx": [5, 5, 5]}]}', "lies outside the image"),
    ('{"a": [{"start_zyx": [0, 0, 40], "size_zyx": [5, 5, 5]}]}', "no region lies on the side of a tumour"),
])
def test_broken_files_of_regions_give_a_line_per_case(native, content, words):
    native.add("a", *abdomen({"left": 3}))
    (native.root / "rois.json").write_text(content)
    (report,) = reports(native, roi=PrecomputedRegions()).values()
    assert report.status == "rejected" and words in report.reason


def test_a_missed_kidney_is_the_worst_result_and_not_none():
    image, labels = abdomen({"left": 3})
    parts = Parts(labels, (0, 0, 0), SPACING, 29.5, 2)
    scan = Scan("a", image, SPACING, 29.5, [parts.kidney("left"), parts.kidney("right")])
    frame = Frame(size=10)
    other = LabelRegions(size=10).boxes(scan)
    assert [region.side for region in other] == ["left"]
    (region,) = chosen([], scan, frame, every_kidney=False)
    assert region == missed("left", scan, frame) and region.score == 0
    assert parts.recall(region.side, region.start, region.size) == 0
    assert chosen(other, scan, frame, False) == other
    assert chosen([], scan, None, True) == []


def test_regions_need_labels_where_they_come_from_labels():
    with pytest.raises(DataError, match="this image has none; give data/roi=lowres"):
        LabelRegions().boxes(Scan("a", np.zeros((4, 4, 4)), (1, 1, 1), 2.0))


def test_every_voxel_of_a_structure_is_drawn_with_the_same_chance(native):
    image, labels = abdomen({"left": 2})
    native.add("a", image, labels)
    window = reports(native)["a"].case.targets["kidney"]
    rng = np.random.default_rng(0)
    drawn = [window.voxel(rng, 2) for _ in range(6000)]
    classes = window.whole()
    assert {tuple(v) for v in np.argwhere(classes == 2)} == set(drawn)
    counts = np.unique(np.array(drawn), axis=0, return_counts=True)[1]
    expected = 6000 / len(counts)
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < len(counts) + 5 * np.sqrt(2 * len(counts))


def test_balls_have_the_volume_of_balls():
    """The helper of these tests: a wrong body would make all of them meaningless."""
    assert ball((21, 21, 21), (10, 10, 10), 8).sum() == pytest.approx(4 / 3 * np.pi * 512, rel=0.03)
