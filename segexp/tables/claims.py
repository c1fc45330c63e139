"""The paper's prose as checks: each ends as holds, fails or undecided, with the numbers that say so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segexp.metrics.scores import paired_difference
from segexp.tables.declaration import Declaration
from segexp.tables.measure import Scores

SIGN = {"higher": 1, "lower": -1}


@dataclass(frozen=True)
class Finding:
    """What became of one claim.

    Attributes:
        name: the claim's name.
        text: what the paper says.
        status: holds, fails or undecided.
        evidence: the numbers, here.
        published: what the paper's own numbers say, empty when they say nothing.
    """

    name: str
    text: str
    status: str
    evidence: str
    published: str = ""


def check_claims(declaration: Declaration, scores: Scores) -> list[Finding]:
    """Return what became of every claim of a table."""
    return [check_claim(name, claim, scores) for name, claim in declaration.claims.items()]


def check_claim(name: str, claim: Mapping[str, Any], scores: Scores) -> Finding:
    """Check one claim; a missing run leaves it undecided."""
    on = claim.get("evaluation")
    missing = {run: scores.missing(run, on) for run in runs_of(claim) if scores.missing(run, on)}
    if missing:
        status, evidence = "undecided", "; ".join(f"{run} is {why}" for run, why in missing.items())
    elif not at_scale(claim, scores):
        status, evidence = "undecided", f"decided at scale={claim['scale']} only"
    else:
        status, evidence = KINDS[claim["kind"]](claim, scores)
    return Finding(name, claim["text"], status, evidence, published_says(claim))


def runs_of(claim: Mapping[str, Any]) -> list[str]:
    """Return the runs that a claim reads."""
    pairs = claim.get("pairs", [])
    single = [claim["run"]] if "run" in claim else []
    return list(dict.fromkeys([*single, *claim.get("runs", []), *(pair[key] for pair in pairs
                                                                  for key in ("left", "right"))]))


def at_scale(claim: Mapping[str, Any], scores: Scores) -> bool:
    """Say whether the runs have the scale at which the claim can be decided."""
    run = runs_of(claim)[0]
    return all(scores.runs[run, seed].run.info.get("scale") == claim["scale"] for seed in scores.seeds(run)) \
        if "scale" in claim else True


def published_says(claim: Mapping[str, Any]) -> str:
    """Return whether the paper's numbers have the claimed order.

    They stand as ``published: [left, right]`` in a pair, or as ``published: {name of the pair: ...}`` in the claim.
    """
    said = []
    for pair, name in zip(claim.get("pairs", ()), names_of(claim), strict=True):
        values = pair.get("published") or claim.get("published", {}).get(name)
        if values:
            left, right = values
            word = "equal" if left == right else judged(left - right, left - right, pair)
            said.append(f"{name} {left} against {right} ({word})")
    return "; ".join(said)


def compare_runs(claim: Mapping[str, Any], scores: Scores) -> tuple[str, str]:
    """Per pair, the differences of two runs over the cases must have the expected sign, or be small.

    Holds when every interval of the mean difference lies on the expected side (``expect: higher`` or ``lower``) or
    within ``within`` of zero (``expect: similar``), fails when one lies wholly elsewhere, else undecided.
    """
    found, texts = [], []
    for pair, name in zip(claim["pairs"], names_of(claim), strict=True):
        what = (pair.get("metric", "dice"), pair["target"], claim.get("evaluation"), pair.get("structure"))
        left, right = (pooled(scores, pair[side], *what) for side in ("left", "right"))
        difference = paired_difference(left, right, on=("case", "seed"))
        found.append(judged(difference["low"], difference["high"], pair))
        texts.append(f"{name} {difference['mean']:+.3f} [{difference['low']:+.3f}, "
                     f"{difference['high']:+.3f}] ({found[-1]})")
    return verdict(found), "; ".join(texts) + f"; {difference['n']} cases"


def judged(low: float, high: float, pair: Mapping[str, Any]) -> str:
    """Return what an interval of the difference left - right says about what is expected of it."""
    if pair["expect"] == "similar":
        low, high = pair["within"] - max(abs(low), abs(high)), pair["within"] - max(low, -high)
    else:
        low, high = sorted(SIGN[pair["expect"]] * end for end in (low, high))
    return "holds" if low > 0 else "fails" if high < 0 else "undecided"


def names_of(claim: Mapping[str, Any]) -> list[str]:
    """Return what every pair compares: its target or structure and metric, and the runs where that is not enough."""
    pairs = claim.get("pairs", ())
    names = [f"{pair.get('structure') or pair['target']} {pair.get('metric', '')}".strip() for pair in pairs]
    return [f"{name}, {pair['left']} - {pair['right']}:" if names.count(name) > 1 else name
            for name, pair in zip(names, pairs, strict=True)]


def verdict(found: list[str]) -> str:
    """Return the status of several: fails if one fails, holds if all hold."""
    return "fails" if "fails" in found else "holds" if set(found) == {"holds"} else "undecided"


def pooled(scores: Scores, run: str, metric: str, target: str, on: str | None = None,
           structure: str | None = None) -> Any:
    """Return the case values of all seeds of a run, or of its evaluation ``on``, with their seed."""
    import pandas as pd

    frames = [scores.cases(run, seed, metric, target, on, structure).assign(seed=seed) for seed in scores.seeds(run)]
    return pd.concat(frames).dropna(subset="value")


def as_list(value: Any) -> list[Any]:
    """Return a list of one or several."""
    return list(value) if isinstance(value, list | tuple) else [value]


def compare_metrics(claim: Mapping[str, Any], scores: Scores) -> tuple[str, str]:
    """Within one run, metric ``left`` must be above ``right``, case by case, on the cases whose group fits."""
    found, texts = [], []
    for target in as_list(claim["target"]):
        left, right = (in_group(pooled(scores, claim["run"], claim[side], target), claim) for side in ("left", "right"))
        if not len(left) or not len(right):
            return "undecided", f"no case of group {claim.get('group', 'any')} has {claim['left']}: it needs a truth"
        difference = paired_difference(left, right, on=("case", "seed"))
        found.append("holds" if difference["low"] > 0 else "fails" if difference["high"] < 0 else "undecided")
        texts.append(f"{target} {left['value'].mean():.3f} against {right['value'].mean():.3f} ({found[-1]})")
    return verdict(found), "; ".join(texts) + f"; {difference['n']} cases"


def in_group(rows: Any, claim: Mapping[str, Any]) -> Any:
    """Return the rows whose group has the claim's word in it."""
    return rows[rows["group"].fillna("").str.contains(claim["group"], regex=False)] if "group" in claim else rows


def bound(claim: Mapping[str, Any], scores: Scores) -> tuple[str, str]:
    """The largest (``below``) or smallest (``above``) value, or the mean over cases, must stay within a limit."""
    found, texts = [], []
    for run in claim["runs"]:
        for target in as_list(claim.get("target", "")):
            rows = pooled(scores, run, claim["metric"], target, claim.get("evaluation"), claim.get("structure"))
            values = in_group(rows, claim)["value"]
            if not len(values):
                continue
            above = "above" in claim
            value = values.mean() if claim.get("statistic") == "mean" else values.min() if above else values.max()
            within = value > claim["above"] if above else value < claim["below"]
            found.append("holds" if within else "fails")
            texts.append(f"{run}{' ' + target if target else ''} {value:.3g}")
    if not found:
        return "undecided", "no such case"
    limit = f"above {claim['above']}" if "above" in claim else f"below {claim['below']}"
    return verdict(found), f"{'; '.join(texts)}; expected {limit}"


def resource(claim: Mapping[str, Any], scores: Scores) -> tuple[str, str]:
    """An entry of a run's resources must stay below a limit, on the kind of device that the claim is about."""
    found, texts = [], []
    for run in claim["runs"]:
        for seed in scores.seeds(run):
            used = scores.runs[run, seed].run.info.get("resources", {})
            if claim.get("device") == "gpu" and str(used.get("device", "cpu")).startswith("cpu"):
                return "undecided", "needs a training on a GPU"
            found.append("holds" if used[claim["resource"]] < claim["below"] else "fails")
            texts.append(f"{run} {used[claim['resource']]:.2f} on {used['device']}")
    return verdict(found), f"{'; '.join(texts)}; expected below {claim['below']}"


def low_cases_are_tool_failures(claim: Mapping[str, Any], scores: Scores) -> tuple[str, str]:
    """Every case and target with a mean Dice below the limit must be one where the tool itself misses the truth."""
    low, explained, texts = 0, 0, []
    targets = sorted({target for seed in scores.seeds(claim["run"])
                      for target in scores.rows(claim["run"], seed)["target"].dropna().unique() if target})
    truth_known = False
    for target in targets:
        dice = pooled(scores, claim["run"], "dice", target)
        tool = pooled(scores, claim["run"], "tool_dice_truth", target).set_index(["case", "seed"])["value"]
        truth_known |= len(tool) > 0
        for row in dice[dice["value"] < claim["below"]].itertuples():
            low += 1
            failed = (row.case, row.seed) in tool.index and tool[row.case, row.seed] < claim["below"]
            explained += failed
            if not failed:
                texts.append(f"{target} {row.case} {row.value:.2f}")
    if not low:
        return "holds", f"no case is below {claim['below']}"
    if not truth_known:
        return "undecided", f"{low} cases are below {claim['below']}; whether the tool failed there needs a truth"
    evidence = f"{explained} of {low} cases below {claim['below']} are failures of the tool"
    if texts:
        evidence += "; not: " + ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "")
    return "holds" if explained == low else "fails", evidence


KINDS: dict[str, Callable[[Mapping[str, Any], Scores], tuple[str, str]]] = {
    "compare_runs": compare_runs, "compare_metrics": compare_metrics, "bound": bound, "resource": resource,
    "low_cases_are_tool_failures": low_cases_are_tool_failures,
}
