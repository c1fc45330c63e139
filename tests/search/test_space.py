"""What is searched: Hydra's grammar as distributions, checked before anything starts."""

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from segexp.cli import main
from segexp.errors import ConfigError
from segexp.search.space import check_space, combinations, split_space

BASE = ["experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu"]


@pytest.mark.parametrize(("word", "expected"), [
    ("loss=choice(dice,tversky)", CategoricalDistribution(("dice", "tversky"))),
    ("loss=dice,tversky", CategoricalDistribution(("dice", "tversky"))),
    ("steps=10,20", CategoricalDistribution(("10", "20"))),
    ("optimizer.lr=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
    ("optimizer.lr=interval(0,1)", FloatDistribution(0, 1)),
    ("network.units=int(interval(1,4))", IntDistribution(1, 4)),
    ("sampling.size=range(8,33,8)", IntDistribution(8, 32, step=8)),
    ("sampling.size=range(32,7,-8)", IntDistribution(8, 32, step=8)),
    ("network.bn_momentum=range(0.1,1.0,0.3)", FloatDistribution(0.1, 0.7, step=0.3)),
])
def test_hydras_sweeps_are_distributions(word: str, expected: object) -> None:
    fixed, (found,) = split_space([*BASE, word])
    assert fixed == BASE
    distribution = found.distribution()
    assert type(distribution) is type(expected)
    if isinstance(expected, CategoricalDistribution):
        assert distribution == expected
    else:
        assert (distribution.low, distribution.log, distribution.step) == (expected.low, expected.log, expected.step)
        assert distribution.high == pytest.approx(expected.high)


@pytest.mark.parametrize(("word", "message"), [
    ("optimizer.lr=tag(log,interval(0,1))", "numbers above 0"), ("optimizer.lr=interval(2,1)", "more than"),
    ("loss=glob(*)", "cannot be searched; expected KEY=choice"), ("loss=choice(dice,dice)", "given twice"),
    ("steps=range(5,5)", "no number in this range"), ("optimizer.lr=interval(1,", "cannot be read"),
])
def test_what_cannot_be_searched_is_said(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_space([*BASE, word])


def test_values_come_back_as_words_that_compose() -> None:
    from segexp.config import compose

    _, space = split_space(["optimizer.lr=tag(log,interval(1e-5,1e-2))", "network.filters=choice([4,8],[8,16])",
                            "network.units=int(interval(1,2))", "tag=choice('a b',c)"])
    words = [one.word(value) for one, value in zip(space, (1.5e-05, "[8,16]", 2, space[3].choices[0]), strict=True)]
    config = compose("train", [*BASE, *words])
    assert (config.optimizer.lr, list(config.network.filters), config.network.units, config.tag) == (
        1.5e-05, [8, 16], 2, "a b")


def test_the_first_and_every_extreme_value_are_tried() -> None:
    fixed, space = split_space([*BASE, "optimizer.lr=interval(0.1,0.5)", "loss=choice(a,b,c)"])
    tried = [words[len(fixed):] for words in combinations(fixed, space)]
    assert tried == [["optimizer.lr=0.1", "loss=a"], ["optimizer.lr=0.5", "loss=a"], ["optimizer.lr=0.1", "loss=b"],
                     ["optimizer.lr=0.1", "loss=c"]]


@pytest.mark.parametrize(("words", "message"), [
    (["loss=choice(dice_cross_entropy,cross_entropi)"], "cross_entropy"),
    (["optimizer.rl=interval(0.1,0.2)"], "lr"),
    (["sampling.size=range(16,21,4)"], "20"),
])
def test_typos_and_values_that_do_not_fit_are_answered_before_anything_starts(words: list[str], message: str) -> None:
    fixed, space = split_space([*BASE, *words])
    with pytest.raises(ConfigError, match=message):
        check_space([*fixed, "data.root=/nowhere"], space)


@pytest.mark.parametrize(("more", "message"), [
    (["metric=test/dice"], "never at the test cases"), (["direction=up"], "maximize"), (["trials=0"], "from 1 on"),
    (["slots=many"], "slots=many"), (["study=../evil"], "expected letters"), (["pruner=meidan"], "did you mean median"),
    (["status"], "there is no such study"), ([], "nothing is searched"), (["trails=4"], "trails"),
    (["loss=choice(dice,tverski)"], "tversky"),
])
def test_mistakes_on_the_command_line_start_nothing(tmp_path: Path, more: list[str], message: str,
                                                    capsys: pytest.CaptureFixture) -> None:
    given = {word.partition("=")[0]: word for word in ["study=s", *BASE, f"paths.outputs={tmp_path}", *more]}
    assert main(["tune", *given.values()]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
