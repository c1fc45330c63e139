"""One thing that was found out about the machine."""

from dataclasses import asdict, dataclass

LEVELS = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it.

    Attributes:
        level: ``ok``, ``warn`` (works, with a drawback) or ``fail`` (training will not work, or not rightly).
        topic: a word.
        text: what was found.
        advice: what to do; empty where there is nothing to do.
    """

    level: str
    topic: str
    text: str
    advice: str = ""

    def lines(self) -> list[str]:
        """Return the lines for a person."""
        first = f"{self.level:<5} {self.topic:<13} {self.text}"
        return [first, *([f"{'':<19} -> {self.advice}"] if self.advice else [])]

    def record(self) -> dict[str, str]:
        """Return the finding for a program."""
        return asdict(self)
