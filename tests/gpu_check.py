"""The parts of `tests/gpu.sh`: every system for 50 steps, their steps as CUDA graphs, resume to the bit, two runs on
one device, the tests marked `gpu`, and the benchmarks, each with the seconds that it took, in one JSON file.

A part that cannot be done here says why. Each has its share of the time; what does not fit is cut off and says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "contracts"), str(HERE.parent)]

Found = dict[str, Any]
# Of a training; the half of them is an interval.
STEPS = 50


class Check:
    """The parts, on one device, with so many seconds for all."""

    def __init__(self, device: str, seconds: float) -> None:
        self.device, self._until = device, time.monotonic() + seconds
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
        if self.cuda:
            of = torch.cuda.get_device_properties(self.device)
            found |= {"device": of.name, "memory": of.total_memory, "capability": f"{of.major}.{of.minor}"}
        return found | {"cpus": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}

    def tests(self) -> Found:
        """`pytest -m gpu`, in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "junit.xml"
            words = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--override-ini=addopts=--strict-markers"]
            done = self._run([sys.executable, "-m", "pytest", *words, f"--junitxml={report}", str(HERE)], 0.5)
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
        return {name: self._told(lambda name=name: self._system(name)) for name in _names()}  # type: ignore[misc]

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
        return {name: self._told(lambda name=name: self._program(name)) for name in _names()}  # type: ignore[misc]

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
        return {
            name: self._told(lambda name=name: self._resumed(name))  # type: ignore[misc]
            for name in ("dcgan", "wgan_gp", "vae", "lstm_lm", "point_gan")
            if name in _names()
        }

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
        """`aigc-lab bench`, as far as the time goes."""
        program = "from aigc_lab.cli import main; main()"
        with tempfile.TemporaryDirectory() as folder:
            words = ["bench", "--quick", "--json", "--device", self.device, "--home", folder]
            done = self._run([sys.executable, "-c", program, *words], 0.9)
        try:
            return {"measured": json.loads(done)}
        except ValueError:
            return {"error": done[-2000:]}

    # ---- pieces

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
            done = subprocess.run(words, capture_output=True, text=True, timeout=self.left(share), check=False)
        except subprocess.TimeoutExpired as error:
            return f"cut off after {error.timeout:.0f} s"
        return done.stdout if done.returncode == 0 else (done.stdout + done.stderr)[-4000:]


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
    check, report = Check(options.device, options.seconds), Found()
    for part in (
        check.machine,
        check.systems,
        check.programs,
        check.resumed,
        check.two_runs,
        check.tests,
        check.benchmarks,
    ):
        began = time.monotonic()
        report[part.__name__] = check._told(part) | {"took": round(time.monotonic() - began, 1)}
        report_text = json.dumps(report, indent=1)
        options.report.with_suffix(".part").write_text(report_text)
        options.report.with_suffix(".part").replace(options.report)
        print(f"{part.__name__}: {json.dumps(report[part.__name__])[:300]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
