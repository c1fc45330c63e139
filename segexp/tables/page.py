"""A measured table as Markdown, LaTeX, CSV and HTML."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.console import duration
from segexp.files import plain_cell, write_text
from segexp.tables.claims import Finding
from segexp.tables.declaration import Declaration
from segexp.tables.measure import Cell
from segexp.tables.plan import Planned

PHANTOM_NOTE = ("Measured on synthetic phantoms, not on the paper's data: the published numbers stand beside for "
                "orientation, and no difference is taken.")
MARKS = {"holds": "holds", "fails": "FAILS", "undecided": "undecided"}


@dataclass(frozen=True)
class Page:
    """All that is shown of one table.

    Attributes:
        declaration: what was declared.
        cells: (row, column) -> measured cell.
        findings: what became of the claims.
        planned: the runs.
    """

    declaration: Declaration
    cells: Mapping[tuple[str, str], Cell]
    findings: Sequence[Finding]
    planned: Sequence[Planned]

    @property
    def phantom(self) -> bool:
        """Say whether any run, or its evaluation on other data, was made on synthetic data."""
        return any(item.run.info.get("phantom") or any(one.record().get("phantom") for one in item.evaluations.values())
                   for item in self.planned)

    @property
    def scale(self) -> str:
        """The runs' scale."""
        return self.planned[0].config.scale.name

    @property
    def title(self) -> str:
        """The title; it says when the data are synthetic."""
        return self.declaration.title + self.caution

    @property
    def caution(self) -> str:
        """What titles end with when the data are synthetic; else empty."""
        return f" (synthetic phantoms, {self.scale} scale)" if self.phantom else ""

    def columns(self) -> list[str]:
        """Return the headings."""
        return ["", "", *self.declaration.columns]

    def lines(self) -> list[list[str]]:
        """Return the body: for every row a line of published and of measured values, on real data of differences too.

        The first text of a line is its row, the second what it holds.
        """
        lines = []
        for row in self.declaration.rows:
            texts = [self.texts(row, column) for column in self.declaration.columns]
            kinds = ["published", "measured", *(["difference"] if self.comparable(row) else [])]
            for kind, name in enumerate(kinds):
                lines.append([row if not kind else "", name, *(cell[kind] for cell in texts)])
        return lines

    def comparable(self, row: str) -> bool:
        """Say whether differences to the paper mean something: no phantoms, and data that others have too."""
        return not self.phantom and self.declaration.rows[row].get("comparable", True)

    def texts(self, row: str, column: str) -> list[str]:
        """Return published, measured and, where the two can be compared, difference of one cell."""
        cell, digits = self.cells[row, column], self.declaration.cells()[row, column]["digits"]
        published = self.declaration.published.get(row, {}).get(column)
        texts = [shown(published, digits), measured(cell, digits)]
        if self.comparable(row):
            number = published.get("mean") if isinstance(published, Mapping) else published
            known = isinstance(number, int | float) and cell.value is not None
            texts.append(f"{cell.value - number:+.{digits}f}" if known else "")
        return texts

    def notes(self) -> list[str]:
        """Return the sentences below the table."""
        notes = [f"Source: {self.declaration.source}.", *self.declaration.notes]
        if any(cell.value is not None for cell in self.cells.values()):
            notes.append(f"Cases with a defined value: {self.counts()}. [low, high]: 95 % bootstrap interval of the "
                         "mean over cases. sd: population standard deviation. Several seeds: mean of each seed's "
                         "statistic.")
        cautions: dict[str, list[str]] = {}
        for item in self.planned:
            for text in item.run.info.get("cautions") or () if item.usable else ():
                cautions.setdefault(text, []).append(f"{item.name} (seed {item.seed})")
        notes += [f"{', '.join(who)}: {text}." for text, who in cautions.items()]
        missing = sorted(f"{item.name} (seed {item.seed}) is {item.status}" for item in self.planned if not item.usable)
        notes += [f"Not shown: {', '.join(missing)}."] * bool(missing)
        return notes + [PHANTOM_NOTE] * self.phantom

    def counts(self) -> str:
        """Return how many cases have a value, and the cells where some have none."""
        whole: set[int] = set()
        partly: dict[tuple[str, int, int], list[str]] = {}
        for (row, column), cell in self.cells.items():
            if cell.value is not None and cell.defined == cell.cases:
                whole.add(cell.cases)
            elif cell.value is not None:
                partly.setdefault((column, cell.defined, cell.cases), []).append(row)
        texts = [f"all {' or '.join(map(str, sorted(whole)))}"] * bool(whole)
        return "; ".join(texts + [f"{column} of {', '.join(rows)}: {defined} of {cases}"
                                  for (column, defined, cases), rows in partly.items()])

    def provenance(self) -> list[str]:
        """Return one line per finished run: id, what it took, code, data, versions, when."""
        lines = []
        for item in self.planned:
            info = item.run.info
            if not item.usable:
                continue
            git = info.get("git") or {}
            code = git.get("commit", "unknown")[:12] + ("+changes" if git.get("changed") else "")
            versions = info.get("packages", {})
            took = duration(info.get("resources", {}).get("train_seconds", 0))
            lines.append(f"{item.run.id}: {item.config.steps} steps in {took}, code {code}, "
                         f"data {info.get('data_fingerprint', '')[:12]}, segexp {versions.get('segexp', '?')}, "
                         f"torch {versions.get('torch', '?')}, {info.get('finished', '')}")
        return lines


def shown(value: Any, digits: int) -> str:
    """Return a published value: numbers with the table's digits, mean (sd), several joined, texts as they are."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return f"{shown(value['mean'], digits)} ({shown(value['sd'], digits)})"
    if isinstance(value, list | tuple):
        return " / ".join(shown(one, digits) for one in value)
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def measured(cell: Cell, digits: int) -> str:
    """Return a measured value with its interval, or why there is none."""
    if cell.value is None:
        return cell.reason
    interval = f" [{cell.low:.{digits}f}, {cell.high:.{digits}f}]" if cell.low is not None else ""
    spread = f" ({cell.sd:.{digits}f})" if cell.sd is not None else ""
    return f"{cell.value:.{digits}f}{spread}{interval}"


def markdown(page: Page) -> str:
    """Return the table, its claims and its notes as aligned Markdown."""
    parts = [f"# {page.title}"]
    if page.cells:
        parts.append(aligned([page.columns(), *page.lines()]))
    if page.findings:
        rows = [["claim", "here", "what the paper says", "evidence", "in the paper's numbers"]]
        rows += [[f.name, MARKS[f.status], f.text, f.evidence, f.published] for f in page.findings]
        parts.append("\n".join(["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]),
                                *("| " + " | ".join(row) + " |" for row in rows[1:])]))
    parts.append("\n".join(f"- {note}" for note in page.notes()))
    parts.append("Runs:\n\n" + "\n".join(f"- `{line}`" for line in page.provenance() or ["none"]))
    return "\n\n".join(parts) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them the heading, as a Markdown table with straight columns."""
    widths = [max(3, *(len(row[k]) for row in rows)) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(text.ljust(width) if k < 2 else text.rjust(width) for k, (text, width) in
                               enumerate(zip(row, widths, strict=True))) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 1) + (":" if k > 1 else "-") for k, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


ESCAPES = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
           "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
           ">": r"\textgreater{}"}


def tex(text: str) -> str:
    """Return text with LaTeX's own characters escaped; a bracket after a line's end would be read as its option."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def latex(page: Page) -> str:
    """Return the table as a ``table`` environment for booktabs."""
    head = page.columns() if page.cells else ["claim", "here", "evidence"]
    body = page.lines() if page.cells else [[f.name, MARKS[f.status], f.evidence] for f in page.findings]
    layout = "ll" + "r" * (len(head) - 2) if page.cells else r"llp{0.7\linewidth}"
    rows = [" & ".join(tex(text) for text in row) + r" \\" for row in [head, *body]]
    return "\n".join([
        "% needs \\usepackage{booktabs}", *(f"% {line}" for line in page.provenance()), r"\begin{table}", r"\centering",
        rf"\caption{{{tex(page.title)}. {tex(' '.join(page.notes()))}}}", rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def comma_separated(page: Page) -> str:
    """Return one line per cell with full precision, then one per claim."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "column", "published", "measured", "low", "high", "defined", "cases", "reason"])
    for (row, column), cell in page.cells.items():
        published = page.declaration.published.get(row, {}).get(column, "")
        numbers = ["" if value is None else repr(value) for value in (cell.value, cell.low, cell.high)]
        texts = [plain_cell(text) for text in (row, column, published)]
        writer.writerow([*texts, *numbers, cell.defined, cell.cases, plain_cell(cell.reason)])
    for finding in page.findings:
        texts = [plain_cell(text) for text in (finding.name, finding.published, finding.evidence)]
        writer.writerow([texts[0], "claim", texts[1], finding.status, "", "", "", "", texts[2]])
    return buffer.getvalue()


def html(page: Page) -> str:
    """Return the table as one page that needs nothing from elsewhere."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
                                     autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("table.html").render(page=page, marks=MARKS)


def write_page(page: Page, folder: Path) -> None:
    """Write table.md, table.tex, table.csv and table.html, each whole or not at all."""
    for name, render in (("md", markdown), ("tex", latex), ("csv", comma_separated), ("html", html)):
        write_text(folder / f"table.{name}", render(page))
