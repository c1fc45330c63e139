"""What is searched: overrides of ``segexp train`` that give several values, as Optuna's distributions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segexp.errors import ConfigError

GRAMMAR = ("KEY=choice(a,b,c), KEY=a,b,c, KEY=range(8,33,8), KEY=interval(0.1,0.5), KEY=tag(log,interval(1e-5,1e-2)), "
           "KEY=int(interval(1,8))")
MANY = 12  # choices of a key that are all tried before anything starts


@dataclass(frozen=True)
class Parameter:
    """One key that is searched.

    Attributes:
        key: as on the command line: ``optimizer.lr``, ``loss``, ``+tag``.
        choices: texts of the values; empty for numbers.
        low: smallest number.
        high: largest number, itself included.
        step: from one number to the next; None: all of them.
        log: whether orders of magnitude count, not differences.
        whole: whether only whole numbers are meant.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    whole: bool = False

    def distribution(self) -> Any:
        """Return Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def word(self, value: Any) -> str:
        """Return the override that sets a value of this parameter."""
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def extremes(self) -> list[str]:
        """Return the overrides that are tried before anything starts: both ends, or every choice."""
        if self.choices:
            chosen = self.choices if len(self.choices) <= MANY else (self.choices[0], self.choices[-1])
            return [self.word(choice) for choice in chosen]
        kind = int if self.whole else float
        return [self.word(kind(value)) for value in dict.fromkeys((self.low, self.high))]


def split_space(words: Sequence[str]) -> tuple[list[str], list[Parameter]]:
    """Split overrides into those with one value and the parameters that are searched.

    Raises:
        ConfigError: an override that cannot be read, or several values of a kind that cannot be searched.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException

    from segexp.config.explanation import explain

    fixed, searched = [], []
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except OverrideParseException as error:
            raise explain(error, "train", [word]) from error
        except HydraException as error:  # what Hydra's grammar itself cannot read
            raise ConfigError(f"{word}: cannot be read ({error}); expected KEY=VALUE, or {GRAMMAR}") from error
        if override.is_sweep_override():
            searched.append(parameter(word.partition("=")[0], word, override))
        else:
            fixed.append(word)
    keys = [one.key for one in searched]
    for key in keys:
        if keys.count(key) > 1 or key in [word.partition("=")[0] for word in fixed]:
            raise ConfigError(f"{key} is given twice")
    return fixed, searched


def parameter(key: str, word: str, override: Any) -> Parameter:
    """Return the parameter that a parsed override with several values means.

    Raises:
        ConfigError: it cannot be searched.
    """
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    value = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, ChoiceSweep):
        texts = tuple(override._get_value_element_as_str(element) for element in value.list)
        if log or len(set(texts)) < len(texts):
            raise ConfigError(f"{word}: " + ("tag(log, ...) is for interval and range" if log else
                                             "a choice is given twice"))
        return Parameter(key, texts)
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        whole = isinstance(low, int) and isinstance(high, int)
        return bounded(Parameter(key, (), low, high, None, log, whole), word)
    if isinstance(value, RangeSweep):
        whole = all(isinstance(one, int) for one in (value.start, value.stop, value.step))
        # Counted, for adding 0.3 to 0.1 three times does not give 1.
        count = math.ceil((value.stop - value.start) / value.step - 1e-9) if value.step else 0
        if count < 1:
            raise ConfigError(f"{word}: there is no number in this range")
        low, high = sorted((value.start, value.start + (count - 1) * value.step))
        return bounded(Parameter(key, (), low, high, None if log else abs(value.step), log, whole), word)
    raise ConfigError(f"{word}: cannot be searched; expected {GRAMMAR}")


def bounded(found: Parameter, word: str) -> Parameter:
    """Return the parameter; ConfigError where its ends make no sense."""
    if found.low > found.high:
        raise ConfigError(f"{word}: {found.low} is more than {found.high}")
    if found.log and found.low <= 0:
        raise ConfigError(f"{word}: tag(log, ...) needs numbers above 0")
    return found


def combinations(fixed: Sequence[str], space: Sequence[Parameter]) -> list[list[str]]:
    """Return the combinations that are tried before anything starts: the first values, then each other extreme."""
    first = {one.key: one.extremes()[0] for one in space}
    found = [[*fixed, *first.values()]]
    for one in space:
        for word in one.extremes()[1:]:
            found.append([*fixed, *{**first, one.key: word}.values()])
    return found


def check_space(fixed: Sequence[str], space: Sequence[Parameter], config_dirs: Sequence[str] = (),
                allow: Sequence[str] = ()) -> int:
    """Compose and check the first and the extreme values; return how many combinations that were.

    Raises:
        ConfigError: one does not compose or does not fit together; the message says which.
    """
    from segexp.config import check, compose

    tried = combinations(fixed, space)
    for words in tried:
        chosen = " ".join(words[len(fixed):])
        try:
            config = compose("train", words, config_dirs)
        except ConfigError as error:
            raise ConfigError(f"with {chosen}: {error}") from error
        problems = check(config, allow=allow, may_miss=(), config_dirs=config_dirs)
        if problems:
            raise ConfigError(f"with {chosen}:\n" + "\n".join(str(problem) for problem in problems))
    return len(tried)
