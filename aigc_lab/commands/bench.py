"""`aigc-lab bench`: what this machine does in a second beside a reference that is timed in the same minutes.

Each result is a file `<home>/bench/ID.json` with the machine's description, and is compared with the last one of the
same machine, device, number of threads and effort.
"""

import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab import plugins
from aigc_lab.benchmarks.base import Benchmark, Setting, Size, Unmeasured
from aigc_lab.errors import UsageError
from aigc_lab.host import environment
from aigc_lab.host.content import unknown_name
from aigc_lab.host.files import write_atomically
from aigc_lab.host.settings import Settings

if TYPE_CHECKING:
    from aigc_lab.benchmarks.shared.timing import Timing

Json = dict[str, Any]
Say = Callable[[str], object]

_FORMAT = 1
_FOLDER = "benchmarks"
# What makes two results comparable, beside the machine.
_ALIKE = ("size", "device", "threads")
# Up to so many times the number of cores as load, what runs beside a measurement hardly changes its clock.
_BUSY = 1.25


def names() -> list[str]:
    """Names of all measurements, the contestants last."""
    return sorted(plugins.names(_FOLDER), key=lambda name: (name == "peers", name))


def chosen(only: Sequence[str] | None, peers: Path | None) -> list[str]:
    """Names of what is to be measured; a folder of peers asks for these too. Raises `UsageError` for an unknown name,
    and for peers without a folder.
    """
    for name in only or ():
        if name not in names():
            raise UsageError(f"--only {name}: {unknown_name('measurement', name, names())}")
    if only and "peers" in only and peers is None:
        raise UsageError("--only peers: name the contestants' folder with --peers DIR")
    asked = {*only, *(["peers"] if peers else [])} if only else {*names()}
    return [name for name in names() if name in asked]


def measure(
    settings: Settings,
    only: Sequence[str] | None = None,
    *,
    device: str = "auto",
    threads: int = 1,
    size: Size = "full",
    peers: Path | None = None,
    show: Say = lambda activity: None,
    say: Say = lambda text: None,
) -> Json:
    """Measures, stores the result in the home and returns it. `show` is told what goes on, `say` what it will cost.

    An interruption ends it: whole rounds so far are in the result, which says `interrupted`. What raises is listed with
    the reason, and the others are measured all the same. Raises `UsageError` before anything is measured.
    """
    from threadpoolctl import threadpool_limits

    wanted = chosen(only, peers)
    settings.prepare()
    device = environment.device(device)
    benchmarks = {name: plugins.find(Benchmark, name)() for name in wanted}  # type: ignore[type-abstract]
    earlier = stored(settings)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=settings.home) as folder, threadpool_limits(threads):
        environment.settle(threads)
        setting = Setting(
            device,
            threads,
            size,
            Path(folder),
            settings.data_dir,
            settings.cache,
            settings.weights,
            None if peers is None else peers.expanduser(),
        )
        for benchmark in benchmarks.values():
            benchmark.check(setting)
        result = _begun(setting)
        say(_cost(result, {name: each for name, each in benchmarks.items() if name != "peers" or peers}, earlier))
        try:
            for number, (name, benchmark) in enumerate(benchmarks.items(), 1):
                _measured(result, name, benchmark, setting, lambda text, n=number: show(f"[{n}/{len(wanted)}] {text}"))  # type: ignore[misc]
        except KeyboardInterrupt:
            result["interrupted"] = True
    result["machine"]["load_after"] = environment.load()
    if result["rows"]:
        _store(settings, result)
    return beside_last(result, earlier)


def _begun(setting: Setting) -> Json:
    now = datetime.now(UTC)
    described = environment.describe(setting.device)
    return {
        "format": _FORMAT,
        "id": f"{now:%Y%m%d-%H%M%S-%f}",
        "at": now.isoformat(timespec="seconds"),
        "size": setting.size,
        "device": setting.device,
        "threads": setting.threads,
        "interrupted": False,
        "machine": {
            "cpu": environment.cpu_model(),
            "cores": environment.cores(),
            "load": environment.load(),
            **{key: value for key, value in described.items() if key not in ("pid", "threads")},
        },
        "rows": [],
        "unmeasured": _elsewhere(setting.device),
        "failed": [],
        "seconds": {},
    }


def _elsewhere(device: str) -> list[Json]:
    """What another device of this machine would say."""
    import torch

    if device.startswith("cuda"):
        return []
    there = torch.cuda.is_available()
    reason = "--device cuda measures it" if there else "torch sees no CUDA device on this machine"
    return [{"benchmark": "all", "case": "on a GPU", "reason": reason}]


def _cost(result: Json, benchmarks: Mapping[str, Benchmark], earlier: Sequence[Json]) -> str:
    """How many measurements there are, and how long they take: as the last time, else as on two cores of a server."""
    from aigc_lab.display.wording import counted, duration

    last = next((each for each in earlier if _alike(result, each)), None)
    taken = {} if last is None else last["seconds"]
    about = sum(taken.get(name, benchmark.seconds[result["size"]]) for name, benchmark in benchmarks.items())
    busy = busy_line(result["machine"])
    return f"{counted(len(benchmarks), 'measurement')}, about {duration(about)}{f'; {busy}' if busy else ''} …"


def busy_line(machine: Mapping[str, Any]) -> str:
    """What a load means for the figures; "" on a machine that has little else to do."""
    load, cores = machine["load"], machine["cores"]
    if load is None or load <= _BUSY * cores:
        return ""
    return f"load {load:.1f} on {cores} cores: figures by the clock depend on what else runs, ratios of CPU time hardly"


def _measured(result: Json, name: str, benchmark: Benchmark, setting: Setting, show: Say) -> None:
    """Adds all cases of a measurement to the result."""
    from aigc_lab.benchmarks.shared.timing import Timing, take

    begun = time.perf_counter()
    show(f"{name}: preparing")
    timing: Timing | None = None
    try:
        for case in benchmark.cases(setting):
            if isinstance(case, Unmeasured):
                result["unmeasured"].append({"benchmark": name, "case": case.name, "reason": case.reason})
                continue
            timing = Timing(case, case.clock or setting.clock)
            of, said = case.rounds, f"{name}: {case.name}"
            show(said)
            take(timing, setting.device, lambda done, said=said, of=of: show(f"{said}, round {done} of {of}"))  # type: ignore[misc]
            _add(result, name, timing)
            timing = None
            show(f"{name}: preparing")
    except KeyboardInterrupt:
        _add(result, name, timing)
        raise
    except UsageError as error:
        result["failed"].append({"benchmark": name, "case": "", "reason": str(error)})
    except Exception as error:  # noqa: BLE001 -- the other measurements say what they say all the same
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        result["failed"].append({"benchmark": name, "case": timing.case.name if timing else "", "reason": reason})
    else:
        result["seconds"][name] = round(time.perf_counter() - begun, 1)


def _add(result: Json, name: str, timing: "Timing | None") -> None:
    if timing is not None and timing.rounds:
        result["rows"].append({"benchmark": name, **timing.row()})


# ---- results of before


def _store(settings: Settings, result: Json) -> None:
    text = json.dumps(result, indent=1, allow_nan=False)
    write_atomically(settings.home / "bench" / f"{result['id']}.json", f"{text}\n".encode())


def stored(settings: Settings) -> list[Json]:
    """Results of a home, the newest first; files of another format, or that are damaged, are left out."""
    results = (_read(path) for path in (settings.home / "bench").glob("*.json"))
    return sorted((each for each in results if each is not None), key=lambda each: str(each["id"]), reverse=True)


def _read(path: Path) -> Json | None:
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("format") == _FORMAT else None


def history(settings: Settings) -> list[Json]:
    """All results, the newest first, each beside the last one before it that it can be compared with."""
    results = stored(settings)
    return [beside_last(each, results[number + 1 :]) for number, each in enumerate(results)]


def beside_last(result: Json, earlier: Iterable[Json]) -> Json:
    """The result, each row with the ratio of the newest earlier result that has the same case, or None."""
    alike = [each for each in earlier if _alike(result, each)]
    rows = []
    for row in result["rows"]:
        same = ((each, _same(row, each["rows"])) for each in alike)
        last = next(((each, its) for each, its in same if its is not None), None)
        before = None if last is None else {"at": last[0]["at"], "id": last[0]["id"], "ratio": last[1]["ratio"]}
        rows.append(row | {"before": before})
    return result | {"rows": rows}


def _same(row: Json, rows: Iterable[Json]) -> Json | None:
    keys = ("benchmark", "case", "reference", "clock", "says")
    return next((each for each in rows if all(each[key] == row[key] for key in keys)), None)


def _alike(one: Json, other: Json) -> bool:
    """Whether two results are of the same machine, and measured the same way."""
    machines = [tuple(each["machine"].get(key) for key in ("host", "cpu", "cores", "device")) for each in (one, other)]
    return machines[0] == machines[1] and all(one[key] == other[key] for key in _ALIKE)
