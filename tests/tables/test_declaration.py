"""The declared tables hold the paper's numbers and refuse what does not fit."""

from pathlib import Path

import pytest
import yaml

from segexp.errors import ConfigError
from segexp.tables.declaration import read_declaration, table_names

# Rajchl et al. 2018, as printed: mean, sd, min, max.
PRINTED = {
    "neuronet_1": {"fsl_fast": (93.6, 2.5, 78.0, 96.9), "fsl_first": (90.2, 3.0, 60.0, 93.1),
                   "malp_em": (87.3, 2.6, 71.3, 90.8), "malp_em_tissue": (94.0, 1.8, 83.2, 96.3),
                   "spm_tissue": (93.3, 4.5, 6.2, 96.0)},
    "neuronet_2": {"fsl_fast": (92.8, 2.6, 73.3, 96.4), "malp_em_tissue": (92.7, 3.2, 61.3, 95.8),
                   "spm_tissue": (93.4, 4.3, 6.3, 96.0)},
    "neuronet_3": {"fsl_fast": (93.1, 2.4, 73.7, 96.5), "fsl_first": (88.8, 4.9, 28.8, 92.7),
                   "malp_em": (85.8, 3.1, 57.3, 89.7), "malp_em_tissue": (93.2, 1.9, 75.8, 95.9),
                   "spm_tissue": (93.4, 4.3, 6.2, 96.1)},
}


@pytest.mark.parametrize("name", PRINTED)
def test_published_values_are_the_papers(name: str) -> None:
    published = read_declaration(name).published
    found = {target: tuple(published[row][target] for row in ("mean", "sd", "min", "max")) for target in PRINTED[name]}
    assert found == PRINTED[name]
    assert set(published["mean"]) == set(PRINTED[name])


def test_the_claims_compare_the_printed_numbers() -> None:
    claims = read_declaration("neuronet_claims").claims
    for target, (all_mean, *_) in PRINTED["neuronet_3"].items():
        assert claims["R1_all"]["published"][target] == [all_mean, PRINTED["neuronet_1"][target][0]]
    for target, (tissue_mean, *_) in PRINTED["neuronet_2"].items():
        assert claims["R1_tissue"]["published"][target] == [tissue_mean, PRINTED["neuronet_1"][target][0]]
        assert claims["R2"]["published"][target] == [PRINTED["neuronet_3"][target][0], tissue_mean]


def test_every_table_reads() -> None:
    assert {"neuronet_1", "neuronet_2", "neuronet_3", "neuronet_runtime", "neuronet_claims"} <= set(table_names())
    for name in table_names():
        assert read_declaration(name).runs


@pytest.mark.parametrize(("change", "message"), [
    ({"titel": "x"}, "title"), ({"rows": {"mean": {"statistic": "mena"}}}, "mean"),
    ({"columns": {"a": {"run": "nn_al", "target": "a"}}}, "nn_all"),
    ({"published": {"mean": {"b": 1}}}, "published.mean.b"),
    ({"runs": {"nn_all": {"overrides": [], "needs": ["nn_all"]}}}, "needs"),
])
def test_mistakes_are_named(tmp_path: Path, change: dict, message: str) -> None:
    content = {"title": "t", "source": "s", "runs": {"nn_all": {"overrides": ["experiment=neuronet/nn_all"]}},
               "cell": {"metric": "dice"}, "rows": {"mean": {"statistic": "mean"}},
               "columns": {"a": {"run": "nn_all", "target": "fsl_fast"}}, **change}
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        read_declaration("mine", [str(tmp_path)])


def test_an_unknown_table_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="neuronet_1"):
        read_declaration("neuronet1")


def test_parents_come_before_children() -> None:
    from dataclasses import replace

    declaration = replace(read_declaration("neuronet_2"), runs={"b": {"overrides": [], "needs": ["a"]},
                                                                "a": {"overrides": []}})
    assert declaration.order() == ["a", "b"]
