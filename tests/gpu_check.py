"""The parts of `tests/gpu.sh`: every system for 50 steps, their steps as CUDA graphs, resume to the bit, two runs on
one device, the tests marked `gpu`, and the benchmarks, each with the seconds that it took, in one JSON file.

A part that cannot be done here says why. Each has its share of the time; what does not fit is cut off and says so. The
file is written after each piece, and the same command goes on from it: what is whole there is not done again.

It runs from the checkout, which need not be installed, with whatever torch there is, the one that `pyproject.toml` asks
for or not. The other packages named there must be importable; those that are missing are named first, and parts that
need none of them are done all the same.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

HERE = Path(__file__).parent
PATHS = [str(HERE), str(HERE / "contracts"), str(HERE.parent)]
sys.path[:0] = PATHS

Found = dict[str, Any]
# Of a training; the half of them is an interval.
STEPS = 50
# Of a piece that was not done, or not to its end.
_UNDONE = {"error", "left out"}
# What two reports of one machine may differ in.
_PASSING = {"load", "took", "lacks"}


def lacking(present: Callable[[str], object] = metadata.version) -> list[str]:
    """The requirements of the project, and of its tests that need a GPU, which are not installed; torch's own versions
    are whatever is there.
    """
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    runs = {"pytest", "torch-fidelity", "hypothesis"}
    missing = []
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if name in ("torch", "torchvision") or (
            requirement in project["dependency-groups"]["dev"] and name not in runs
        ):
            continue
        try:
            present(name)
        except metadata.PackageNotFoundError:
            missing.append(requirement)
    return missing


def whole(found: Found) -> bool:
    """Whether a piece of a report was done to its end."""
    return not _UNDONE & found.keys()


def earlier(report: Path, machine: Found) -> Found:
    """The report that is there, if it is of this machine, torch and commit; else none."""
    try:
        found: Found = json.loads(report.read_text("utf-8"))
        of = found["machine"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    alike = all(of.get(key) == machine.get(key) for key in (of.keys() | machine.keys()) - _PASSING)
    return found if alike else {}


class Check:
    """The parts, on one device, with so many seconds for all. What is found is in `found`, by part, and in the file."""

    def __init__(self, device: str, seconds: float, report: Path) -> None:
        self.device, self._until, self._report = device, time.monotonic() + seconds, report
        self.found: Found = {}
        if not self.cuda:
            torch.set_num_threads(1)  # threads that wait for each other's turn take most of a busy machine

    def left(self, share: float = 1.0) -> float:
        """Seconds that a part may take."""
        return max(self._until - time.monotonic(), 0.0) * share

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def machine(self) -> Found:
        found: Found = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
        found |= {"asked": self.device, "commit": _commit(), "lacks": lacking()}
        if self.cuda:
            of = torch.cuda.get_device_properties(self.device)
            found |= {"device": of.name, "memory": of.total_memory, "capability": f"{of.major}.{of.minor}"}
        return found | {"cpus": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}

    def tests(self) -> Found:
        """`pytest -m gpu`, in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "junit.xml"
            words = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--override-ini=addopts=--strict-markers"]
            words += ["--continue-on-collection-errors"]
            # Alone: to collect all of the tests takes longer than to run these.
            files = [str(path) for path in sorted(HERE.rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
            done = self._run([sys.executable, "-m", "pytest", *words, f"--junitxml={report}", *files], 0.5)
            if not report.exists():
                return {"error": done}
            cases = list(ElementTree.parse(report).iter("testcase"))
        names = {
            kind: [f"{case.get('classname')}::{case.get('name')}" for case in cases if case.find(kind) is not None]
            for kind in ("failure", "error", "skipped")
        }
        return {"tests": len(cases), "failed": names["failure"] + names["error"], "skipped": len(names["skipped"])}

    def systems(self) -> Found:
        """Every system: 50 steps, and samples that are finite."""
        return self._each("systems", _names(), self._system)

    def _system(self, name: str) -> Found:
        if self.left() < 150:
            return {"left out": "the time is up"}
        state, batches = self._fresh(name)
        began = time.perf_counter()
        _train(state, batches, STEPS)
        self._wait()
        seconds = time.perf_counter() - began
        made = state.system.generate(16, "gpu").values
        finite = not made.is_floating_point() or bool(made.isfinite().all())
        return {"steps per second": round(STEPS / seconds, 1), "finite": finite}

    def programs(self) -> Found:
        """Every system's steps as programs, on a GPU as CUDA graphs, beside the same steps computed by Python."""
        return self._each("programs", _names(), self._program)

    def _program(self, name: str) -> Found:
        from aigc_lab.training.captured import as_ever
        from aigc_lab.training.plain import Plain
        from aigc_lab.training.state import Replica

        if self.left() < 130:
            return {"left out": "the time is up"}
        seconds, courses = [], []
        for context in (as_ever, nullcontext):
            state, batches = self._fresh(name)
            (course,) = Plain.of([Replica(state, batches, 0)], 0.9, "fp32")
            course.resume()
            with context():
                for _ in range(STEPS // 2):
                    course.step()
                self._wait()
                began = time.perf_counter()
                for _ in range(STEPS // 2):
                    course.step()
                self._wait()
            seconds.append(time.perf_counter() - began)
            courses.append(course)
        programs = courses[1]
        pairs = zip(*(each.replicas[0].state.system.parameters() for each in courses), strict=True)
        off = max(((one - two).norm() / one.norm().clamp_min(1e-12)).item() for one, two in pairs)
        found: Found = {"repeated": programs.repeated, "off": off, "times as fast": round(seconds[0] / seconds[1], 2)}
        return found if programs.reason is None else found | {"reason": programs.reason}

    def resumed(self) -> Found:
        """50 steps at once, and as 25 and 25 of two states: the same bits."""
        names = ("dcgan", "wgan_gp", "vae", "lstm_lm", "point_gan")
        return self._each("resumed", [name for name in names if name in _names()], self._resumed)

    def _resumed(self, name: str) -> Found:
        from aigc_lab.training.checkpoint import restore_state, save_state

        if self.left() < 120:
            return {"left out": "the time is up"}
        whole, batches = self._fresh(name)
        _train(whole, batches, STEPS)
        half, _ = self._fresh(name)
        _train(half, batches, STEPS // 2)
        other, _ = self._fresh(name)
        with tempfile.TemporaryDirectory() as folder:
            save_state(half, Path(folder) / "state.safetensors")
            restore_state(other, Path(folder) / "state.safetensors")
        _train(other, batches, STEPS)
        pairs = zip(whole.system.state_dict().values(), other.system.state_dict().values(), strict=True)
        return {"same bits": all(torch.equal(one, two) for one, two in pairs)}

    def two_runs(self) -> Found:
        """A short sweep whose two workers share the device."""
        where = ["--devices", self.device, "--trials-per-gpu", "2"] if self.cuda else ["--workers", "2"]
        program = "from aigc_lab.cli import main; main()"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            words = ["sweep", "ring", "--trials", "2", "--steps", "200", "--set", "confirm=null", "--json"]
            words += ["--home", folder, *where]
            began = time.monotonic()
            done = self._run([sys.executable, "-c", program, *words], 0.4)
            try:
                rows = json.loads(done)
            except ValueError:
                return {"error": done[-2000:]}
        return {
            "seconds": round(time.monotonic() - began, 1),
            "rows": len(rows),
            "states": [row["state"] for row in rows],
        }

    def benchmarks(self) -> Found:
        """`aigc-lab bench`, one measurement after the other, as far as the time goes."""
        from aigc_lab.commands.bench import names

        return self._each("benchmarks", [name for name in names() if name != "peers"], self._benchmark)

    def _benchmark(self, name: str) -> Found:
        if self.left() < 15:
            return {"left out": "the time is up"}
        program = "from aigc_lab.cli import main; main()"
        with tempfile.TemporaryDirectory() as folder:
            words = ["bench", "--only", name, "--quick", "--json", "--device", self.device, "--home", folder]
            done = self._run([sys.executable, "-c", program, *words], 0.9)
        try:
            return {"measured": json.loads(done)}
        except ValueError:
            return {"error": done[-2000:]}

    # ---- pieces

    def do(self, part: Callable[[], Found]) -> None:
        """Does a part, unless it was done to its end before."""
        name = part.__name__
        before = self.found.get(name, {})
        pieces = [each for each in before.values() if isinstance(each, dict)]
        if before and whole(before) and all(map(whole, pieces)):
            return
        began = time.monotonic()
        found = self._told(part)
        self.found[name] = found | {"took": round(before.get("took", 0.0) + time.monotonic() - began, 1)}
        self.save()

    def _each(self, part: str, names: Iterable[str], do: Callable[[str], Found]) -> Found:
        """The pieces of a part by name: those that are whole already as they are, the others done now."""
        before: Found = self.found.get(part, {})
        found = {name: each for name, each in before.items() if isinstance(each, dict) and whole(each)}
        for name in names:
            if name not in found:
                found[name] = self._told(lambda name=name: self._in_time(do, name))  # type: ignore[misc]
                self.found[part] = found | {"took": before.get("took", 0.0)}
                self.save()
        return found

    def _in_time(self, do: Callable[[str], Found], name: str) -> Found:
        """What a piece finds, or `TimeoutError` when the time for all is up: on a busy machine one may take minutes."""

        def cut_off(*_: object) -> None:
            raise TimeoutError("cut off, for the time is up")

        before = signal.signal(signal.SIGALRM, cut_off)
        signal.setitimer(signal.ITIMER_REAL, max(self.left(), 0.1))
        try:
            return do(name)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def save(self) -> None:
        draft = self._report.with_suffix(".part")
        draft.write_text(json.dumps(self.found, indent=1), "utf-8")
        draft.replace(self._report)

    def _fresh(self, name: str) -> tuple[Any, Any]:
        from test_contract_systems import case

        from aigc_lab.data.shared.batches import Batches
        from aigc_lab.training.state import TrainingState

        made = case(name, ())
        state = TrainingState.fresh(made.kind, made.config, made.shape, seed=0, batch_size=12, device=self.device)
        return state, Batches(made.samples.to(self.device), 12, 0)

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def _told(self, part: Callable[[], Found]) -> Found:
        """What a part found, or the error that ended it."""
        try:
            return part()
        except Exception as error:  # noqa: BLE001 -- one that fails must not take the others with it
            return {"error": f"{type(error).__name__}: {error}"[:2000]}

    def _run(self, words: list[str], share: float) -> str:
        """What a command prints, cut off after its share of the time."""
        try:
            # Workers are processes of their own, which find the checkout by this alone.
            env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [*PATHS, os.environ.get("PYTHONPATH")]))}
            done = subprocess.run(words, capture_output=True, text=True, timeout=self.left(share), check=False, env=env)
        except subprocess.TimeoutExpired as error:
            return f"cut off after {error.timeout:.0f} s"
        return done.stdout if done.returncode == 0 else (done.stdout + done.stderr)[-4000:]


def _commit() -> str | None:
    done = subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _names() -> list[str]:
    from aigc_lab import plugins

    return plugins.names("systems")


def _train(state: Any, batches: Any, steps: int) -> None:
    from aigc_lab.training.loop import train_one

    for _ in train_one(state, batches, seed=0, steps=steps, every=STEPS // 2, decay=0.9, precision="fp32"):
        pass


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("report", type=Path)
    arguments.add_argument("--device", default="cuda:0")
    arguments.add_argument("--seconds", type=float, default=460.0)
    options = arguments.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device here; DEVICE=cpu rehearses", file=sys.stderr)
        return 2
    check = Check(options.device, options.seconds, options.report)
    machine = check.machine()
    check.found = earlier(options.report, machine) | {"machine": machine}
    if machine["lacks"]:
        lacks = " ".join(f"'{each}'" for each in machine["lacks"])
        print(f"not installed, so that some parts will fail: pip install {lacks}", file=sys.stderr, flush=True)
    parts = (check.systems, check.programs, check.resumed, check.two_runs, check.tests, check.benchmarks)
    for part in parts:
        check.do(part)
        print(f"{part.__name__}: {json.dumps(check.found[part.__name__])[:300]}", flush=True)
    found = [check.found[part.__name__] for part in parts]
    pieces = [*found, *(piece for each in found for piece in each.values() if isinstance(piece, dict))]
    undone = not all(map(whole, pieces)) or bool(check.found["tests"].get("failed"))
    if undone:
        print("not everything was done, or done well; the same command goes on", file=sys.stderr)
    return int(undone)


if __name__ == "__main__":
    sys.exit(main())
