"""All findings about this machine, in the order in which they are shown."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from segexp.machine import defects, facts, judge, probes
from segexp.machine.finding import Finding


def examine(outputs: str | Path, measure: bool = True) -> Iterator[Finding]:
    """Yield what is found out about this machine, the quick things first.

    Args:
        outputs: where runs will be written.
        measure: also time a few convolutions, about two seconds.
    """
    tools, packages, cpu = facts.tools(), facts.packages(), facts.cpu()
    yield judge.python(sys.version_info[:3])
    yield from defects.defects(packages)
    yield judge.processor(cpu)
    yield judge.memory(facts.memory())
    yield judge.shared_memory(facts.shared_memory())
    yield from judge.place("outputs", probes.place(Path(outputs)))
    yield from judge.place("temporary", probes.place(Path(tempfile.gettempdir())))
    yield judge.open_files(facts.open_files())
    yield from judge.programs(tools, packages)
    torch = facts.load_torch()
    yield judge.torch(torch)
    yield judge.threads(cpu, torch, tools)
    yield from judge.devices(torch, tools)
    times: dict[str, tuple[float, float]] = {}
    layouts: dict[str, float] = {}
    if measure and torch.version and not torch.error:
        try:
            times["cpu"] = probes.bf16_ratio("cpu")
            times |= {f"cuda:{index}": probes.bf16_ratio("cuda") for index in range(min(len(torch.gpus), 1))}
            device = "cuda" if torch.gpus else "cpu"
            layouts = {norm: probes.layout_ratio(norm, device) for norm in ("batch", "instance")}
        except Exception as error:  # out of memory, a kernel that is not there: the rest still counts
            yield Finding("warn", "measurement", f"a convolution failed: {type(error).__name__}: {error}")
    yield from judge.precision(torch, cpu.flags, times)
    yield judge.layout(layouts)
