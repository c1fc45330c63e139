"""Which configurations are the same run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segexp.config import compose, conf_dir, folder
from segexp.runs.identity import canonical, run_hash

BASE = ("experiment=neuronet/nn_all", "scale=smoke")


def digest(*overrides: str) -> str:
    return run_hash(compose("train", [*BASE, *overrides]))


@pytest.fixture(scope="module")
def base() -> str:
    return digest()


@pytest.mark.parametrize("experiment", folder.choices([conf_dir()], "experiment"))
def test_no_run_depends_on_where_outputs_lie(experiment: str) -> None:
    here, there = (run_hash(compose("train", [f"experiment={experiment}", "data.root=/data", *more]))
                   for more in ([], ["paths.outputs=/elsewhere"]))
    assert here == there


@pytest.mark.parametrize("overrides", [
    ("data.root=/elsewhere",), ("data.workers=3",), ("logger=tensorboard",), ("paths.outputs=/tmp",), ("name=other",),
    ("trainer=cpu",), ("threads=1",), ("validate_every=1",), ("data.truth_root=null",),
])
def test_paths_machines_and_names_do_not_matter(base: str, overrides: tuple[str, ...]) -> None:
    assert digest(*overrides) == base


@pytest.mark.parametrize("overrides", [
    ("seed=2",), ("tag=again",), ("steps=5",), ("network.variant=paper",), ("method/targets=nn_tissue",),
    ("optimizer.lr=0.5",), ("trainer.precision=bf16-mixed",), ("sampling.size=24",), ("data.train_size=3",),
    ("loss=dice_cross_entropy",), ("metrics=surface",),
])
def test_what_decides_the_result_matters(base: str, overrides: tuple[str, ...]) -> None:
    assert digest(*overrides) != base


def test_an_experiment_and_its_overrides_spelled_out_are_the_same_run(base: str) -> None:
    assert run_hash(compose("train", ["method=neuronet", "method/targets=nn_all", "scale=smoke"])) == base


def test_numbers_are_compared_by_value() -> None:
    assert canonical({"a": 1.0, "b": (1, 2)}) == canonical({"a": 1, "b": [1, 2]})


@given(st.dictionaries(st.sampled_from(["steps", "seed", "tag"]), st.integers(), min_size=1))
def test_order_of_keys_does_not_matter(values: dict[str, int]) -> None:
    assert run_hash(values) == run_hash(dict(reversed(values.items())))
