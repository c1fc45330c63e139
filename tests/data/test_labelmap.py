import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segexp.data.labelmap import LabelMap, lookup_table
from segexp.errors import ConfigError, DataError
from tests.data.heads import DEFAULTS, LABEL_MAPS, TARGETS

CLASSES = {"fsl_fast": 4, "fsl_first": 16, "spm_tissue": 4, "malp_em": 139, "malp_em_tissue": 6}


@pytest.mark.parametrize("target", TARGETS)
def test_declared_maps_have_the_papers_classes_and_round_trip(target):
    label_map = LabelMap.from_mapping(target, LABEL_MAPS[target])
    assert label_map.num_classes == CLASSES[target]
    assert label_map.names[0] == "background"
    assert all(name == name.lower() and " " not in name for name in label_map.names)
    raw = np.array(label_map.values, np.int32)
    classes = label_map.encode(raw, "x")
    assert classes.dtype == np.uint8
    assert classes.tolist() == list(range(label_map.num_classes))
    np.testing.assert_array_equal(label_map.decode(classes), raw)
    assert label_map.decode(classes).dtype == np.uint8


def test_structures_of_the_tools_sit_at_their_values():
    first, malp = LABEL_MAPS["fsl_first"], LABEL_MAPS["malp_em"]
    same = {10: 30, 11: 9, 12: 28, 13: 26, 16: 7, 17: 20, 18: 6, 26: 4, 49: 29, 50: 8, 51: 27, 52: 25, 53: 19, 54: 5,
            58: 3}
    for value, other in same.items():
        assert first[value] == malp[other]
    assert malp[41] == "acgg_right" and malp[138] == "ttg_left" and malp[39] == "basal_forebrain_left"


@given(arrays(np.int32, 40, elements=st.integers(-5, 80_000)))
def test_encode_equals_a_loop_and_counts_what_is_unknown(raw):
    label_map = LabelMap.from_mapping("x", {0: "background", 3: "a", 17: "b", 70_000: "c"})
    expected = [label_map.values.index(v) if v in label_map.values else 0 for v in raw.tolist()]
    assert label_map.encode(raw, "x", "background").tolist() == expected
    unknown = [v for v in raw.tolist() if v not in label_map.values]
    assert label_map.unknown(raw) == {v: unknown.count(v) for v in set(unknown)}
    if unknown:
        with pytest.raises(DataError, match="not in the label map"):
            label_map.encode(raw, "x")


def test_unknown_values_are_named_with_their_voxels():
    label_map = LabelMap.from_mapping("fsl_fast", LABEL_MAPS["fsl_fast"])
    with pytest.raises(DataError, match=r"seg.nii.gz: values 7 \(1 voxel\), 99 \(2 voxels\) .* declares 0..3"):
        label_map.encode(np.array([0, 1, 99, 99, 7]), "seg.nii.gz")


@pytest.mark.parametrize(("value", "reason"), [
    (0.5, "not whole numbers"), (np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"),
])
def test_labels_that_are_not_whole_are_refused(value, reason):
    label_map = LabelMap.from_mapping("fsl_fast", LABEL_MAPS["fsl_fast"])
    assert label_map.encode(np.array([0.0, 2.0], np.float32), "x").tolist() == [0, 2]
    with pytest.raises(DataError, match=reason):
        label_map.encode(np.array([0.0, value], np.float32), "x")


def test_decode_uses_the_smallest_type_and_refuses_other_classes():
    label_map = LabelMap.from_mapping("x", {0: "background", 300: "a"})
    assert label_map.decode(np.array([1], np.uint8)).dtype == np.uint16
    for bad in ([2], [-1]):
        with pytest.raises(DataError, match=r"classes 0..1"):
            label_map.decode(np.array(bad))


@pytest.mark.parametrize(("structures", "reason"), [
    ({}, "no structures"), ({1: "background"}, "0: background"), ({0: "air"}, "0: background"),
    ({0: "background", 1: "a", 2: "a"}, "more than once"), ({0: "background", -1: "a"}, "whole number"),
    ({0: "background", "1": "a"}, "whole number"), ({0: "background", 1: ""}, "needs a name"),
    ({0: "background", True: "a"}, "whole number"),
    ({0: "background", **{k: f"s{k}" for k in range(1, 256)}}, "at most 255"),
])
def test_bad_declarations_name_the_key(structures, reason):
    with pytest.raises(ConfigError, match=rf"data.label_maps.x: .*{reason}"):
        LabelMap.from_mapping("x", structures)


def test_tissue_lookup_follows_malp_ems_rule():
    malp, tissue = (LabelMap.from_mapping(t, LABEL_MAPS[t]) for t in ("malp_em", "malp_em_tissue"))
    table = lookup_table(malp, tissue, DEFAULTS["lookups"]["malp_em_tissue"]["values"])
    rule = {0: 0, **{k: 3 for k in range(41, 139)}, **{k: 2 for k in range(1, 41)},
            **{k: 1 for k in (1, 2, 21, 22, 23, 24)}, **{k: 4 for k in (12, 13, 16, 17)},
            **{k: 5 for k in (14, 15, 18, 33, 34)}}
    assert table.tolist() == [rule[k] for k in range(139)]


@pytest.mark.parametrize(("groups", "reason"), [
    ({0: [0], 1: [1]}, "no entry for the values 2"), ({0: [0], 1: [1, 2, 1]}, "named twice"),
    ({0: [0], 9: [1, 2]}, "9 is not a file value"), ({0: [0], 1: [1, 2, 5]}, "5 is not a file value"),
])
def test_bad_lookups_name_the_key(groups, reason):
    source = LabelMap.from_mapping("s", {0: "background", 1: "a", 2: "b"})
    target = LabelMap.from_mapping("t", {0: "background", 1: "a"})
    with pytest.raises(ConfigError, match=rf"data.lookups.t: .*{reason}"):
        lookup_table(source, target, groups)
