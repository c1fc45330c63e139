"""A run's configuration, changed for an evaluation."""

from pathlib import Path

import pytest
import yaml

from segexp.config import compose
from segexp.config.objects import plain
from segexp.errors import ConfigError
from segexp.files import write_text
from segexp.runs import Run, locate_run
from segexp.runs.restore import changed_config


def written(outputs: Path, *overrides: str) -> Run:
    """Return a run with nothing but its configuration."""
    config = compose("train", [*overrides, "scale=smoke", f"paths.outputs={outputs}"])
    run = locate_run(config)
    write_text(run.path / "config.yaml", yaml.safe_dump(plain(config)))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return written(tmp_path, "experiment=neuronet/nn_tissue")


def test_a_key_a_group_and_a_group_of_another_method_change_their_place_alone(run: Run) -> None:
    config = changed_config(run, ["network.units=3", "metrics=surface", "inference/crf=local", "method/targets=nn_all"])
    assert config.network.units == 3 and config.network.filters == run.config()["network"]["filters"]
    assert config.metrics.metrics == ["dice", "hd95", "assd"]
    assert config.inference.crf["_target_"].endswith("LocalMeanField") and config.inference.box_margin == 8
    assert len(config.method.targets) == 5 and config.method["_target_"].endswith("NeuroNetModule")
    assert changed_config(run, ["inference/crf=none"]).inference.crf is None


def test_other_data_bring_all_of_their_keys(run: Run) -> None:
    config = changed_config(run, ["data=cain", "data.root=/data/cain", "method.targets=[wmh]"])
    assert config.data["_target_"] == "segexp.data.CAIN" and config.data.root == "/data/cain"
    assert plain(config.data)["targets"] == ["wmh"] and "layouts" not in config.data


def test_other_data_are_scaled_as_in_training_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    run = written(tmp_path, "experiment=siamese/dice", "data.intensity.percentile=99.5")
    words = ["data=cain", "data.root=/data/cain"]
    assert changed_config(run, words).data.intensity.percentile == 99.5
    assert plain(changed_config(run, words[::-1])) == plain(changed_config(run, words))
    assert changed_config(run, ["data.intensity.percentile=100", *words]).data.intensity.percentile == 100
    run = written(tmp_path, "experiment=kidney_ppm/fcn_ppm", "data.resample=[1,1,2]", "data.root=/data")
    assert changed_config(run, ["data=kidney_cta", "data.root=/other"]).data.resample == [1, 1, 2]


@pytest.mark.parametrize(("change", "message"), [
    ("network.unit=3", "units"), ("metrics=surfac", "surface"), ("inference/crf=loca", "local"),
    ("metrics", "KEY=VALUE"),
])
def test_mistakes_are_answered_with_the_nearest(run: Run, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed_config(run, [change])
