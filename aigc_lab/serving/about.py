"""What MLflow's pages say of a promoted version: the same when it is promoted, restored, or described anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.display.selection import passed_over_lines
from aigc_lab.serving import classes
from aigc_lab.statistics.wording import floor_text, interval, number

if TYPE_CHECKING:
    from aigc_lab.tracking.model_registry import About

# Verdicts that stand among the tags.
_VERDICTS = ("collapse", "stability")


def about(row: dict[str, Any]) -> "About":
    """Tags and description of a version, of its row as `list_models` returns it."""
    from aigc_lab.tracking.model_registry import About

    tags = {key: row[key] for key in ("run", "checkpoint", "system", "reason") if row[key] is not None}
    if selection := row["selection"]:
        tags["rank"] = str(selection["rank"]) + (", confirmed" if selection["confirmed"] else "")
        tags |= {"passed_over": " ".join(each["run"] for each in selection["passed_over"])} if _passed(row) else {}
    tags |= {kind: row["verdicts"][kind] for kind in _VERDICTS if kind in row["verdicts"]}
    if names := classes.stored(Path(row["path"])):
        tags["classes"] = classes.listed(names)
    score = row["score"]
    if score is not None:
        tags |= {"objective": f"{score['name']} ({score['better']} is better)", "signature": score["signature"]}
        tags["score"] = number(score["value"]) if score["value"] is not None else "not finite"
        if score["low"] is not None or score["high"] is not None:
            tags["interval"] = interval(score).partition(" ")[2]
    return About(tags, _description(row))


def _description(row: dict[str, Any]) -> str:
    score, verdicts = row["score"], row["verdicts"]
    lines = []
    if score is not None:  # first: of long lines, lists of versions show the beginning
        floor = floor_text(score)
        real = f"; real samples score {floor}" if floor else ""
        lines.append(
            f"{score['name']} {interval(score)} of {score['n']:,} samples, 95 % interval,"
            f" {score['better']} is better{real}."
        )
    said = [f"{kind} {verdicts[kind]}" for kind in _VERDICTS if kind in verdicts]
    lines += [f"Verdicts: {', '.join(said)}."] if said else []
    lines.append(f"{row['system']}, {row['checkpoint']} weights of run {row['run']}.")
    names = classes.stored(Path(row["path"]))
    lines += [f"Classes drawn on demand: {classes.listed(names)}."] if names else []
    lines += [_capital(f"{line}.") for line in _passed(row)]
    lines += [f"Promoted all the same: {row['reason']}"] if row["reason"] else []
    lines += [f"Signature: `{score['signature']}`"] if score is not None else []
    # Two spaces at its end keep a line one in Markdown.
    return "  \n".join(lines)


def _passed(row: dict[str, Any]) -> list[str]:
    return passed_over_lines(row["selection"])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
