"""README's way to several machines, run as it is written there. PostgreSQL, MLflow's server and an object store are
real servers on the loopback; machines are folders with a home each. What one loses, another goes on with.
"""

import importlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import slurm_scripts
from conftest import Postgres
from harness import plain_environment
from s3_server import S3Server

import aigc_lab
from aigc_lab.errors import UsageError
from aigc_lab.registry import liveness
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.address import check_address

for needed in ("s3fs", "moto", "flask_cors", "psycopg"):
    pytest.importorskip(needed)

README = (Path(aigc_lab.__file__).parents[1] / "README.md").read_text("utf-8")
GROW = README.partition("\n## Grow\n")[2].partition("\n## ")[0]
BLOCKS = dict(re.findall(r"^<!-- recipe: (\w+) -->\n```bash\n(.*?)^```$", GROW, re.DOTALL | re.MULTILINE))
#: a block -> how many of its lines a test below runs
RUN = {"addresses": 3, "servers": 6, "queue": 5, "result": 4, "ray": 3, "slurm": 1}
#: a block -> why no test runs it
NOT_RUN = {"install": "a download: whoever runs these tests has installed what it names"}

EXPERIMENT = """\
data: {{name: ring, points: {points}, sigma: 0.5}}
system: {{name: point_gan, hidden: 16, lr: {{log: [1e-3, 1e-2]}}}}
training: {{steps: 600, batch_size: 32, log_every: 50, evaluate_every: 150, threads: 1, checkpoint_seconds: 0}}
evaluation: {{name: points, samples: 200}}
objective: {{minimize: rkl}}
search: {{trials: 4, seeds: 1, sampler: random, pruner: median}}
"""


def commands(block: str) -> list[str]:
    """The lines of a block, as a shell reads them."""
    return [line for line in BLOCKS[block].replace("\\\n", " ").splitlines() if line.strip()]


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], Any], seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return found


class Lab:
    """The servers, and machines that know their addresses; what is started on one ends with the lab."""

    def __init__(self, folder: Path, postgres: Postgres, s3: S3Server, stack: ExitStack) -> None:
        self.folder, self.s3, self._stack = folder, s3, stack
        self.mlflow = f"127.0.0.1:{(mlflow := port())}"
        #: what the README calls by a name of its own -> what it is here
        self.here = {
            r"lab@db/(\w+)": rf"lab@/\1?host={postgres.host}",
            r"-h db\b": f"-h {postgres.host}",
            r"mlflow:5000": self.mlflow,
            r"--host 0\.0\.0\.0 --port 5000": f"--host 127.0.0.1 --port {mlflow}",
            r"http://minio:9000": s3.address,
            r"cuda:0": "cpu",
        }
        self.path = os.pathsep.join([str(Path(sys.executable).parent), str(postgres.programs), os.environ["PATH"]])
        kept = {name: value for name, value in plain_environment().items() if not name.startswith("AWS_")}
        self._environment = kept | {"PATH": self.path, "OMP_NUM_THREADS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        self._environment |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}

    def lines(self, block: str, **more: str) -> list[str]:
        """The commands of a block, with the addresses that hold here, and what else is another here."""
        found = commands(block)
        for pattern, text in (self.here | more).items():
            found = [re.sub(pattern, text, line) for line in found]
        return found

    def machine(self, name: str, points: int = 500) -> Path:
        """A folder to which somebody has copied the addresses and the experiment, which `points` make another."""
        place = self.folder / name
        if not place.exists():
            place.mkdir()
            (place / "lab.env").write_text("\n".join(self.lines("addresses")))
            (place / "search.yaml").write_text(EXPERIMENT.format(points=points))
        return place

    def start(self, machine: Path, line: str, **variables: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["bash", "-c", f"source lab.env\n{line}"],
            cwd=machine,
            env=self._environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

        def end() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

        self._stack.callback(end)
        return process

    def run(self, machine: Path, *lines: str, **variables: str) -> str:
        """What commands print, which go on side by side and end well."""
        processes = [self.start(machine, line, **variables) for line in lines]
        told = [process.communicate(timeout=300)[0] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join(told)
        return "\n".join(told)

    def serve(self) -> None:
        """Makes what is made once, and starts MLflow's server."""
        *made, served = self.lines("servers")
        admin = self.machine("admin")
        self.run(admin, "\n".join(["set -e", *made]))
        with (self.folder / "mlflow.log").open("w") as log:
            words = f"exec > {shlex.quote(log.name)} 2>&1\n{served}"
            self.start(admin, words)
        until(self._answers)

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{self.mlflow}/health", timeout=5):
            return True
        return False

    def ask_mlflow(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://{self.mlflow}/api/2.0/mlflow/{what}", timeout=30) as answer:
            return json.load(answer)

    # ---- what the registry says

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        (url,) = re.findall(r"AIGC_LAB_REGISTRY_URL=(\S+)", "\n".join(self.lines("addresses")))
        with Registry.open(url, create=False) as registry:
            yield registry

    def supervisor(self) -> int | None:
        """The process that runs the sweep and has opened it to workers."""
        with suppress(UsageError), self.registry() as registry:  # there may be none yet, or no sweep
            sweep = find_sweep(registry, "search")
            row = liveness.supervisor(registry, sweep)
            return None if row is None or registry.opening(sweep) is None else int(row["pid"])
        return None

    def running(self) -> list[int]:
        """The processes that train now."""
        with self.registry() as registry:
            return [row["pid"] for row in liveness.running(registry)]

    def runs(self) -> list[dict[str, Any]]:
        """All that is recorded of the runs of the newest sweep."""
        with self.registry() as registry:
            return [show_run(registry, row["run"]) for row in list_runs(registry, find_sweep(registry, "search"))]


@pytest.fixture(scope="module")
def lab(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    s3 = S3Server()
    s3.start()
    with ExitStack() as stack:
        stack.callback(s3.stop)
        made = Lab(tmp_path_factory.mktemp("lab"), server, s3, stack)
        made.serve()
        yield made


def test_every_command_of_the_recipe_is_run_or_it_is_said_why_not() -> None:
    assert BLOCKS.keys() == RUN.keys() | NOT_RUN.keys()
    assert {name: len(commands(name)) for name in RUN} == RUN
    assert GROW.count("\n```") == 2 * len(BLOCKS), "a block without a name"


def test_what_is_to_be_installed_is_what_these_tests_use() -> None:
    (line,) = commands("install")
    assert shlex.split(line, comments=True) == ["pip", "install", "aigc-lab[postgres,s3]", "boto3"]
    for name in ("psycopg", "s3fs", "boto3"):
        importlib.import_module(name)


def test_a_server_that_does_not_know_its_name_is_refused_with_the_remedy(lab: Lab) -> None:
    check_address(f"http://{lab.mlflow}")
    unknown = lab.mlflow.replace("127.0.0.1", "localhost")
    with pytest.raises(UsageError, match=f"under this name; start it with --allowed-hosts {unknown}$"):
        check_address(f"http://{unknown}")


def test_the_process_that_runs_a_sweep_is_lost_and_another_machine_takes_over(lab: Lab) -> None:
    a, b, c = (lab.machine(name) for name in "abc")
    doctor, sweep, worker, standby, status = lab.lines("queue")
    told = lab.run(b, doctor)
    assert "s3://bucket/lab: can be read and written" in told and f"http://{lab.mlflow}: reachable" in told

    first = lab.start(a, sweep)
    pid = until(lab.supervisor)
    joined = lab.start(b, worker)
    second = lab.start(c, standby)
    (training,) = until(lab.running)
    told = lab.run(c, status)
    assert str(training) in told and str(pid) in told
    os.kill(pid, signal.SIGKILL)
    told, _ = second.communicate(timeout=240)
    assert second.returncode == 0, told
    assert f"process {pid} on" in told and "was lost; this one takes over" in told
    left, _ = joined.communicate(timeout=120)
    assert joined.returncode == 0, left
    assert "is not run any more: it has ended, or was stopped" in left
    assert first.wait(timeout=30) != 0

    runs = lab.runs()
    assert {run["state"] for run in runs} <= {"FINISHED", "PRUNED"} and len(runs) == 4
    for run in runs:
        # The worker went on while nobody ran the sweep: nothing was begun twice.
        assert [attempt["state"] for attempt in run["attempts"]] == [run["state"]]
        assert run["environment"]["pid"] == training

    # What one machine has trained, the others have.
    compare, promote, sample, verify = lab.lines("result")
    tables = [lab.start(machine, compare) for machine in (a, b, c)]
    (table,) = {table.communicate(timeout=120)[0] for table in tables}
    assert table.count("point_gan") >= len(runs) and not any(table.returncode for table in tables)
    lab.run(c, promote)
    told = lab.run(a, sample, verify)
    assert len(list(a.glob("samples-search-*/*"))) > 1
    assert "all agree" in told and "models: 1" in told
    (version,) = lab.ask_mlflow("registered-models/get?name=search")["registered_model"]["latest_versions"]
    assert version["version"] == "1" and version["source"].startswith("models:/")
    keys = lab.s3.keys("bucket")
    for run in runs:
        assert any(key.startswith("mlflow/") and f"/{run['mlflow_run_id']}/" in key for key in keys)
    assert any(key.startswith("lab/models/") and "safetensors" in key for key in keys)


@pytest.mark.slow
def test_a_ray_cluster_does_the_runs(lab: Lab) -> None:
    pytest.importorskip("ray")
    from ray_cluster import RayCluster

    home = lab.folder / "shared"
    here = {"--num-gpus 4": "--num-cpus 2", "gpus_per_worker": "cpus_per_worker", "/shared/lab": str(home)}
    head, node, sweep = lab.lines("ray", **here)
    words = shlex.split(head, comments=True)
    assert words[:5] == ["ray", "start", "--head", "--port", "6379"]
    with RayCluster(*words[5:]) as cluster:
        words = shlex.split(node)
        assert words[:4] == ["ray", "start", "--address", "HOST:6379"]
        cluster.node(*words[4:])
        told = lab.run(lab.machine("ray", points=501), sweep, **cluster.environment)
    assert "on a Ray cluster of 2 nodes" in told
    assert [run["state"] for run in lab.runs()].count("FINISHED") >= 1
    assert all(len(run["attempts"]) == 1 for run in lab.runs())


@pytest.mark.slow
def test_jobs_of_slurm_do_the_runs(lab: Lab) -> None:
    place = lab.machine("slurm", points=502)
    (sweep,) = lab.lines("slurm", gpus_per_worker="cpus_per_worker")
    found = slurm_scripts.install(place)
    found["PATH"] = f"{place / 'bin'}{os.pathsep}{lab.path}"
    told = lab.run(place, sweep, **found)
    assert "4 Slurm jobs of 4:00:00 submitted" in told
    assert "#SBATCH --partition=gpu" in next((place / "queue").glob("*.script")).read_text()
    assert {run["state"] for run in lab.runs()} <= {"FINISHED", "PRUNED"}
    assert all(len(run["attempts"]) == 1 for run in lab.runs())


@pytest.mark.slow
def test_what_the_bucket_of_mlflow_has_lost_is_found_from_any_machine_and_sent_again(lab: Lab) -> None:
    place, other = lab.machine("e", points=503), lab.machine("f", points=503)
    lab.run(place, "aigc-lab sweep search.yaml --trials 1 --device cpu")
    (run,) = lab.runs()
    assert "all agree" in lab.run(other, "aigc-lab verify search --deep")
    keys = [key for key in lab.s3.keys("bucket") if key.startswith("mlflow/") and run["mlflow_run_id"] in key]
    weights = next(key for key in keys if key.endswith("last.safetensors"))
    picture = next(key for key in keys if "+step+600+" in key and key.endswith(".png"))
    whole = lab.s3.content("bucket", weights)
    lab.s3.put("bucket", weights, bytes(len(whole)))
    lab.s3.put("bucket", picture, b"no picture")
    assert "all agree" in lab.run(other, "aigc-lab verify search")
    process = lab.start(other, "aigc-lab verify search --deep")
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and told.count("problem: ") == 2 and "2 problems" in told, told
    (remedy,) = set(re.findall(r"aigc-lab reconcile .*", told))
    lab.run(other, remedy)
    assert "all agree" in lab.run(place, "aigc-lab verify search --deep")
    assert lab.s3.content("bucket", weights) == whole
