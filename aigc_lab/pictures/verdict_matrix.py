"""Verdicts as a matrix: a row a configuration, a column a seed, a colour and a letter a verdict."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from aigc_lab.errors import UsageError
from aigc_lab.pictures import rows
from aigc_lab.pictures.style import INK, NORMAL, SMALL, SOFT, WIDTH, blank, footnote
from aigc_lab.registry.seed_runs import SeedGroup, SeedRun
from aigc_lab.verdicts.seeds import Chance, p_collapse, p_unstable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Severity = Literal["good", "open", "none", "mild", "bad", "worst"]

# The worse, the darker: so it prints in grey.
_PAINT: Mapping[Severity, tuple[str, str]] = MappingProxyType(
    {
        "good": ("#d7ecf7", INK),
        "open": ("#ffffff", INK),
        "none": ("#e7e7e4", SOFT),
        "mild": ("#f3c79b", INK),
        "bad": ("#e57a2e", INK),
        "worst": ("#5c1f00", "white"),
    }
)


class Cell(NamedTuple):
    """The letter of a verdict, and how bad it is."""

    letter: str
    severity: Severity


CELLS: Mapping[str, Mapping[str, Cell]] = MappingProxyType(
    {
        "collapse": {
            "NONE": Cell("N", "good"),
            "INCONCLUSIVE": Cell("?", "open"),
            "UNMEASURABLE": Cell("U", "open"),
            "PARTIAL": Cell("P", "mild"),
            "SEVERE": Cell("S", "bad"),
            "TOTAL": Cell("T", "worst"),
            "POSTERIOR-COLLAPSED": Cell("C", "worst"),
        },
        "stability": {
            "STABLE": Cell("S", "good"),
            "WITHHELD": Cell("?", "open"),
            "OSCILLATING": Cell("O", "mild"),
            "REGRESSED": Cell("R", "bad"),
            "NEVER-LEARNED": Cell("N", "bad"),
            "DIVERGED": Cell("D", "worst"),
        },
    }
)
# Of a run that has no verdict: how it ended.
ENDS: Mapping[str, Cell] = MappingProxyType(
    {
        "FINISHED": Cell("–", "none"),
        "DIVERGED": Cell("×", "worst"),
        "FAILED": Cell("f", "none"),
        "KILLED": Cell("k", "none"),
        "PRUNED": Cell("p", "none"),
        "RUNNING": Cell("…", "none"),
        "QUEUED": Cell("…", "none"),
    }
)
KINDS = ("collapse", "stability")
_COLUMNS = 24


def verdict_of(run: SeedRun, kind: str) -> str | None:
    """The last verdict of a kind on a run; None without one."""
    if kind == "collapse":
        return run.collapse
    return None if run.stability is None else str(run.stability["verdict"])


def chance(group: SeedGroup, kind: str) -> Chance | None:
    """How likely a run of the group goes wrong; None without verdicts."""
    told = [verdict for run in group.ended if (verdict := verdict_of(run, kind)) is not None]
    return (p_collapse if kind == "collapse" else p_unstable)(told) if told else None


def cell_of(run: SeedRun, kind: str) -> Cell:
    verdict = verdict_of(run, kind)
    return ENDS[run.state] if verdict is None else CELLS[kind].get(verdict, Cell(verdict[:1], "open"))


def verdict_matrix(groups: Sequence[SeedGroup]) -> "Figure":
    """Both verdicts on each run, side by side. Raises `UsageError` where no run has one."""
    if not any(verdict_of(run, kind) for group in groups for run in group.runs for kind in KINDS):
        raise UsageError("--kind verdicts: no run has a verdict yet; they come with the evaluations of a run")
    shown = [group for part in rows.panels(groups) for group in rows.best_first(part)][: rows.ROWS]
    names = rows.names(shown)
    columns = min(max(len(group.runs) for group in shown), _COLUMNS)
    tall = 0.9 + sum(max(0.27, 0.13 * (1 + name.count("\n"))) for name in names)
    figure, ((left, right),) = blank(1, 2, (WIDTH, tall), sharey=True)
    for axes, kind in zip((left, right), KINDS, strict=True):
        _matrix(axes, shown, kind, columns)
    left.set_yticks(range(len(shown)), names)
    left.tick_params(axis="y", labelsize=SMALL)
    longest = max(len(group.runs) for group in shown)
    footnote(
        figure,
        [
            *meanings(shown),
            f"Columns: seeds, the lowest first (n = {rows.count(longest, 'run')} a row at most). Right of a row: runs "
            "that went wrong among those that are decided, and the share that this allows (95 %, Wilson; "
            "open: undecided, which may be either).",
            rows.left_out(sum(map(len, rows.panels(groups))), len(shown), "rows"),
            f"Of {longest} runs the first {columns} are shown, and all are counted." if longest > columns else "",
            rows.alike(shown),
            rows.of_system(shown),
            "Rows: the best median first." if len(rows.panels(groups)) == 1 else "",
            *rows.signature_lines(shown),
        ],
    )
    return figure


def _matrix(axes: "Axes", groups: Sequence[SeedGroup], kind: str, columns: int) -> None:
    from matplotlib.patches import Rectangle

    for row, group in enumerate(groups):
        for column, run in enumerate(sorted(group.runs, key=lambda run: (run.sweep, run.trial, run.seed))[:columns]):
            cell = cell_of(run, kind)
            paint, ink = _PAINT[cell.severity]
            axes.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, facecolor=paint, edgecolor="#9aa3ae"))
            size = NORMAL if columns <= 12 else SMALL
            axes.text(column, row, cell.letter, ha="center", va="center", color=ink, fontsize=size)
        if told := chance(group, kind):
            text = f"{told.wrong}/{told.decided} [{100 * told.low:.0f}, {100 * told.high:.0f} %]"
            text += f"\n{told.undecided} open" if told.undecided else ""
            axes.text(columns - 0.3, row, text, va="center", fontsize=SMALL)
    axes.set_xlim(-0.6, columns - 0.3 + max(columns, 4) * 0.62)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(kind, fontsize=NORMAL + 1, loc="left")


def meanings(groups: Sequence[SeedGroup]) -> list[str]:
    """What the letters mean, of the verdicts and ends that occur."""
    runs = [run for group in groups for run in group.runs]
    lines = []
    for kind in KINDS:
        there = {verdict_of(run, kind) for run in runs}
        said = [f"{cell.letter} {verdict}" for verdict, cell in CELLS[kind].items() if verdict in there]
        lines.append(f"{kind}: {', '.join(said)}." if said else "")
    ends = {run.state for run in runs if any(verdict_of(run, kind) is None for kind in KINDS)}
    words = {"FINISHED": "not judged"}
    said = [f"{cell.letter} {words.get(state, state.lower())}" for state, cell in ENDS.items() if state in ends]
    return [*lines, f"Without a verdict: {', '.join(said)}." if said else ""]
