"""The files of a report: every table as CSV, every figure as PNG, and the samples of every run that it shows."""

from collections.abc import Iterator
from pathlib import Path

from aigc_lab.errors import UsageError
from aigc_lab.host.files import write_atomically
from aigc_lab.web import embedded_files, seed_figures, tables
from aigc_lab.web.embedded_files import Picture
from aigc_lab.web.real_samples import decoded
from aigc_lab.web.report import Report


def write_files(folder: Path, report: Report) -> int:
    """Writes the files of a report into a folder, which is made if it is not there, and returns their number. Raises
    `UsageError` where it cannot be written.
    """
    count = 0
    try:
        folder.mkdir(exist_ok=True)
        for name, content in files_of(report):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)
            count += 1
    except OSError as error:
        raise UsageError(f"--files {folder}: it cannot be written ({error.strerror}); name another folder") from None
    return count


def files_of(report: Report) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. Training curves have all their points, of which the page may hold fewer."""
    whole = [
        run | {"curves": embedded_files.curves(report.files.get(run["run"], []), most=None)[0]} for run in report.runs
    ]
    for table in [*report.tables, tables.curves(whole)]:
        if table.rows:
            yield f"{table.name}.csv", table.csv.encode()
    yield from _figures(report)
    for run in report.runs:
        for picture in run["pictures"][-1:]:
            yield from _samples(f"samples/{run['run']}", picture)
        for name, picture in run["views"].items():
            yield from _samples(f"{name}/{run['run']}", picture)
    if report.real is not None and report.real.picture is not None:
        yield from _samples("real", report.real.picture)


def _samples(name: str, picture: Picture) -> Iterator[tuple[str, bytes]]:
    if picture.lines:
        yield f"{name}.txt", "".join(f"{line}\n" for line in picture.lines).encode()
    elif picture.uri:
        yield f"{name}.png", decoded(picture)


def _figures(report: Report) -> Iterator[tuple[str, bytes]]:
    from aigc_lab.pictures import charts

    data = report.data
    if picture := charts.objective(data):
        yield "objective.png", picture
    for run in data["runs"]:
        if run["bins"] and run["bins"]["names"]:
            yield f"bins-{run['label']}.png", charts.bins(run["bins"])
    if warm := [run for run in data["runs"] if run["temperature"]]:
        yield "quality-diversity.png", charts.quality(warm)
    if "beside" in data:
        yield "beside-likelihood.png", charts.beside(data["beside"])
    shown = [run for run in data["runs"] if run["curves"]]
    for number, (family, picture) in enumerate(charts.curves(data, shown).items()):
        yield f"curves-{_file_name(family, number)}.png", picture
    over_steps = [
        run | {"curves": {f"score/{name}": told for name, told in data["steps"][run["run"]].items()}}
        for run in data["runs"]
        if run["run"] in data["steps"]
    ]
    for picture in charts.curves(data, over_steps).values():
        yield "scores-over-steps.png", picture
    yield from seed_figures.pictures(report.seed_runs)
    names = dict.fromkeys(name for trial in data["trials"] for name in trial["config"])
    for number, name in enumerate(names):
        if picture := charts.values(data, name):
            yield f"trials-{_file_name(name, number)}.png", picture


def _file_name(name: str, number: int) -> str:
    """The name of a scalar or a key, where it is one that a file can have, else its number."""
    plain = all(letter.isascii() and (letter.isalnum() or letter in "_-.") for letter in name)
    return name if plain and name[:1].isalnum() and len(name) < 60 else str(number)
