"""`--executor ray`: what it says to its cluster and of it, what is refused at once, and that no secret is seen. That
it does runs as every executor must is said by its contracts; the last test kills a node of two.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray_cluster import RayCluster
from shell import command

from aigc_lab import plugins
from aigc_lab.contracts.executors import Watcher, case_of
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors import ray as executor
from aigc_lab.executors.base import Executor, Place
from aigc_lab.executors.ray import Ray
from aigc_lab.executors.shared import ray_node
from aigc_lab.executors.shared.ray_driver import Demand
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.runs import list_runs, show_run

RING: dict[str, Any] = {
    "data": {"name": "ring", "points": 2000},
    "system": {"name": "point_gan", "hidden": 8},
    "training": {"steps": 4, "batch_size": 16, "log_every": 2, "evaluate_every": 4, "threads": 1},
    "evaluation": {"name": "points", "samples": 200},
    "objective": {"minimize": "rkl"},
}


# ---- what it says and is told, without a cluster


class Cluster:
    """In the place of the connection: what it was told, and what it is to say."""

    def __init__(self, *_: object) -> None:
        self.told: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.gone: str | None = None

    def connected(self) -> dict[str, Any]:
        return {"nodes": 2, "room": 2, "gpus": 4.0}

    def events(self) -> Iterator[dict[str, Any]]:
        while self.said:
            yield self.said.pop(0)

    def lost(self) -> str | None:
        return self.gone

    def tell(self, **words: Any) -> None:
        self.told.append(words)

    def close(self) -> None: ...

    kill = close

    def place(self, number: int, pid: int) -> None:
        self.said.append({"event": "placed", "place": number, "host": "a", "pid": pid})

    def end(self, number: int, text: str, *, error: bool = False) -> None:
        self.said.append({"event": "ended", "place": number, "text": text, "error": error})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes an executor with so many workers; returns it, its cluster, and what it says to the user."""
    monkeypatch.setattr(executor, "Connection", Cluster)

    def make(workers: int = 3, **options: Any) -> tuple[Ray, Any, list[str]]:
        said: list[str] = []
        experiment = load_experiment({"name": "mine"} | RING, data_dir=tmp_path)
        places = [Place("cpu", 1)] * workers
        ray = Ray(experiment, places, Settings.load(tmp_path), said.append, Ray.Config(**options))
        return ray, ray._connection, said

    return make


def row(pid: int, *, ready: bool = True) -> dict[str, Any]:
    return {"process": Process("a", "", pid, ""), "host": "a", "ready": ready, "alive": True, "error": None}


def test_what_a_worker_takes_is_said(made: Any) -> None:
    assert made(1)[2] == [
        "1 worker on a Ray cluster of 2 nodes, 1 CPU, no GPU; its 4 GPU stay idle without --executor-option "
        "gpus_per_worker=1"
    ]
    assert made(3, gpus_per_worker=0.25, cpus_per_worker=2, resources={"a100": 1})[2] == [
        "3 workers on a Ray cluster of 2 nodes, 2 CPU, 0.25 GPU, 1 a100 each"
    ]


def test_workers_that_wait_are_said_once(made: Any) -> None:
    ray, cluster, said = made(3)
    del said[:]
    cluster.place(0, 1)
    ray.watch([row(1)])
    assert said == []  # the second may be on its way
    cluster.place(1, 2)
    for _ in range(3):
        ray.watch([row(1), row(2)])
    assert said == [
        "waiting for 1 of 3 workers: the cluster has room for 2; they join when it has more",
    ]
    cluster.place(2, 3)
    ray.watch([row(1), row(2), row(3)])
    assert len(said) == 1


def test_runs_are_asked_for_as_many_workers_as_are_there_or_on_their_way(made: Any) -> None:
    ray, cluster, _ = made(3)
    assert ray.slots_for([]) == 2  # there is room for so many
    for pid in (1, 2):
        cluster.place(pid - 1, pid)
    ray.watch([row(1), row(2)])
    assert ray.slots_for([row(1), row(2)]) == 2
    cluster.place(2, 3)
    ray.watch([row(1), row(2)])
    assert ray.slots_for([row(1), row(2)]) == 3
    assert ray.slots_for([row(1), row(2), row(3), row(4), row(5, ready=False)]) == 4  # another has joined


def test_workers_wait_for_others_that_use_the_cluster(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray, _, said = made(2)
    del said[:]
    ray.watch([])
    assert said == []
    monkeypatch.setattr(executor, "_BUSY", 0.0)
    ray.watch([])
    ray.watch([])
    assert said == ["waiting for 2 of 2 workers: the cluster has no room for them now; they join when it has more"]


def test_a_worker_that_is_lost_is_started_again(made: Any) -> None:
    ray, cluster, _ = made(2)
    for pid in range(1, 9):  # however often, if it had been ready
        cluster.place(1, pid)
        ray.watch([row(pid)])
        cluster.end(1, "its node was lost")
        ray.watch([])
        assert ray.fate(row(pid)) == "its node a was lost"
    assert cluster.told == [{"do": "start", "place": 1}] * 8
    assert ray.fate(row(99)) == "its worker on a was lost"


def test_one_that_is_lost_before_it_is_seen_to_be_ready_was_ready(made: Any) -> None:
    ray, cluster, _ = made(1, retries=1)
    for pid in range(1, 5):
        cluster.place(0, pid)
        cluster.end(0, "its worker process ended by SIGKILL")
        ray.watch([row(pid) | {"alive": False}])
    assert cluster.told == [{"do": "start", "place": 0}] * 4


def test_one_that_is_never_ready_is_given_up_and_the_others_go_on(made: Any) -> None:
    ray, cluster, said = made(2, retries=1)
    del said[:]
    cluster.place(0, 1)
    for pid in (2, 3):
        cluster.place(1, pid)
        cluster.end(1, "its worker process ended with code 1")
        ray.watch([row(1)])
    assert cluster.told == [{"do": "start", "place": 1}, {"do": "release", "place": 1}]
    assert said[-1] == "a worker is not started again: its worker process ended with code 1"
    cluster.end(0, "node b: home /h is not there", error=True)
    ray.watch([])  # the first was ready
    cluster.end(0, "node b: home /h is not there", error=True)
    with pytest.raises(Failure, match="no worker can go on: its worker process ended with code 1"):
        ray.watch([])


def test_what_every_worker_meets_ends_the_sweep_with_its_words(made: Any) -> None:
    ray, cluster, _ = made(1)
    cluster.place(0, 1)
    ray.watch([row(1, ready=False)])
    ray.erred(row(1) | {"error": {"kind": "UsageError", "text": "this worker has torch 2.15"}})
    cluster.end(0, "its worker process ended with code 1")
    with pytest.raises(UsageError, match="^this worker has torch 2.15$"):
        ray.watch([])


def test_a_cluster_that_is_gone_ends_the_sweep_with_what_to_do(made: Any) -> None:
    ray, cluster, _ = made(1)
    cluster.gone = "the connection to the Ray cluster at auto was lost"
    with pytest.raises(Failure, match="was lost; once it is there again: aigc-lab resume mine-"):
        ray.watch([])


@pytest.mark.parametrize(
    ("name", "value"), [("gpus_per_worker", 1.5), ("cpus_per_worker", -1), ("resources", {"a100": 2.5})]
)
def test_amounts_that_ray_has_not_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="0.25, 1, 2|greater than or equal to 0"):
        Ray.Config(**{name: value})


@pytest.mark.parametrize(
    ("demand", "node", "fit"),
    [
        ({"cpus": 1, "gpus": 0}, {"CPU": 4.0}, 4),
        ({"cpus": 1, "gpus": 0.1}, {"CPU": 64.0, "GPU": 1.0}, 10),
        ({"cpus": 1, "gpus": 0.3}, {"CPU": 64.0, "GPU": 1.0}, 3),
        ({"cpus": 1, "gpus": 1}, {"CPU": 64.0}, 0),
        ({"cpus": 1, "gpus": 0, "resources": {"a100": 1}}, {"CPU": 3.0, "a100": 2.0}, 2),
    ],
)
def test_the_room_of_a_node(demand: dict[str, Any], node: dict[str, float], fit: int) -> None:
    rest: dict[str, Any] = {"address": "", "resources": {}, "workers": 1}
    assert Demand(**(rest | demand)).fit(node) == fit


def test_a_node_that_sees_another_home_says_so(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    given = {"sweep": "s", "device": "cpu", "threads": 1, "log": "", "mark_file": str(mark), "mark": "1"}

    def blind(home: Path, **environment: str) -> str | None:
        return ray_node._blind(ray_node.Task(home=str(home), environment=environment, **given))  # type: ignore[arg-type]

    assert (blind(tmp_path / "no") or "").startswith(
        f"home {tmp_path}/no is not there: put it into a folder that every"
    )
    mark.write_text("2")
    assert (blind(tmp_path) or "").startswith(f"home {tmp_path} is another folder there: put it into")
    assert blind(tmp_path, AIGC_LAB_STORE_URL="s3://x") is None
    mark.write_text("1")
    assert blind(tmp_path) is None


# ---- what is refused at once


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring.yaml").write_text(yaml.safe_dump(RING))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = command("train", "ring.yaml", "--executor", "ray")
    assert told.code == 2
    assert told.why == "error: executor ray: Ray is not installed here: pip install 'aigc-lab[ray]'"


@pytest.mark.usefixtures("folder")
def test_a_port_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    told = command("train", "ring.yaml", "--executor", "ray")
    assert (told.code, told.why) == (2, f"error: executor ray: no Ray cluster at {address}: connection refused")


@pytest.mark.usefixtures("folder")
def test_a_cluster_that_crashed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = command("train", "ring.yaml", "--executor", "ray")
    assert (told.code, told.why) == (2, "error: executor ray: no Ray cluster at 127.0.0.1:1: connection refused")


@pytest.mark.slow
@pytest.mark.usefixtures("folder", "ray_cluster")
def test_a_worker_that_no_node_can_hold_is_refused() -> None:
    words = ("--executor", "ray", "--executor-option", "gpus_per_worker=0.5", "--executor-option", "cpus_per_worker=3")
    told = command("train", "ring.yaml", *words)
    assert told.code == 2
    assert told.why == (
        "error: executor ray: no node of the Ray cluster can ever hold a worker of 3 CPU, 0.5 GPU: of 1 node none has "
        "more than 2 CPU, 0 GPU; ask for less with --executor-option cpus_per_worker=…, gpus_per_worker=… or "
        "resources=…"
    )
    told = command("train", "ring.yaml", *words[:-1], "cpus_per_worker=1.5")
    assert told.code == 2 and "cpus_per_worker=1.5: cpus_per_worker: Ray shares one of a kind in fractions" in told.why


# ---- on a cluster


@pytest.mark.slow
def test_passwords_stand_on_no_command_line_and_in_no_log(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2-" + os.urandom(8).hex()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    seen: dict[str, Any] = {}

    def look(process: Process | None, ended: object) -> None:
        assert process is not None
        seen["has"] = psutil.Process(process.pid).environ().get("MLFLOW_TRACKING_PASSWORD")
        lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
        seen["lines"] = [line for line in lines if secret in line]
        seen["nodes"] = {each.pid for node in ray_cluster.nodes for each in node.processes()}
        seen["worker"] = process.pid

    with case_of(plugins.find(Executor, "ray")) as case, case.shared() as session:  # type: ignore[type-abstract]
        job = session.job()
        with session.in_the_middle(job, look):
            session.executor.run(job, Watcher())
        logs = [path for root in (ray_cluster.folder, session.settings.home / "logs") for path in root.rglob("*")]
        assert seen["has"] == secret and seen["lines"] == [] and seen["worker"] in seen["nodes"]
        told = [path for path in logs if path.is_file() and secret.encode() in path.read_bytes()]
    assert told == []


@pytest.mark.slow
def test_a_node_is_killed_in_the_middle_of_a_sweep(ray_cluster: RayCluster, folder: Path) -> None:
    """Every run is done once, and the table is that of a sweep that no cluster was told of."""
    experiment = RING | {
        "data": {"name": "ring", "points": 2000, "sigma": 0.2},
        "system": {"name": "point_gan", "hidden": 8, "gain": 1.5, "lr": {"log": [1.0e-3, 1.0e-1]}},
        "training": RING["training"] | {"steps": 1000, "log_every": 100, "evaluate_every": 500},
        "objective": {"maximize": "hq"},
        "search": {"trials": 4, "seeds": 2, "sampler": "random"},
    }
    Path("two.yaml").write_text(yaml.safe_dump(experiment))
    node = ray_cluster.node("--num-cpus", "2")

    def sweep(home: str, *words: str) -> "subprocess.Popen[str]":
        program = "from aigc_lab.cli import main; main()"
        run = [sys.executable, "-c", program, "sweep", "two.yaml", "--json", "--home", home, *words]
        return subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process = sweep("ray", "--executor", "ray", "--workers", "3")
    settings = Settings.load(folder / "ray")
    hit = None
    try:
        while hit is None and process.poll() is None:
            time.sleep(0.2)
            with suppress(UsageError), open_registry(settings) as registry:  # it may not be there yet
                running = {row["process"].pid: row["run"] for row in liveness.running(registry) if row["process"]}
                hit = next((running[each.pid] for each in node.processes() if each.pid in running), None)
        node.kill()
        output, errors = process.communicate()
    finally:
        process.kill()
    print(errors)
    assert process.returncode == 0 and hit is not None
    with open_registry(settings) as registry:
        runs = {run["run"]: show_run(registry, run["run"]) for run in list_runs(registry)}
    states = {name: [attempt["state"] for attempt in run["attempts"]] for name, run in runs.items()}
    assert {run["state"] for run in runs.values()} == {"FINISHED"}
    assert all(each.count("FINISHED") == 1 for each in states.values()) and len(states[hit]) > 1
    rows, errors = sweep("local", "--executor", "local", "--workers", "2").communicate()
    assert [stripped(row) for row in json.loads(output)] == [stripped(row) for row in json.loads(rows)], errors


def stripped(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table without its times."""
    return {key: value for key, value in row.items() if not re.search("second|time|started|cost", key)}
