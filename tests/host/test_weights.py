"""Weights are the published ones, or refused, or called unverified in every score; a download is whole or absent."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aigc_lab.data.digits import Digits
from aigc_lab.errors import UsageError
from aigc_lab.extractors.shared.lookup import find_extractor
from aigc_lab.extractors.shared.pretrained import InceptionFeatures
from aigc_lab.host.weights import Published, WeightsPolicy

CONTENT = bytes(range(256)) * 12_000
FILE = Published("Nobody", "nobody.pth", hashlib.sha256(CONTENT).hexdigest(), "", ("also.pth",))


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


class Server(http.server.BaseHTTPRequestHandler):
    """Sends `content` and announces `announced` bytes."""

    content, announced = CONTENT, len(CONTENT)

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/nobody.pth" else 404)
        self.send_header("Content-Length", str(self.announced))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield replace(FILE, address=f"http://127.0.0.1:{server.server_port}/nobody.pth")
        server.shutdown()
        thread.join()


def test_a_named_file_comes_first_then_the_folder_then_torchs(tmp_path: Path, hub: Path) -> None:
    policy = WeightsPolicy(folder=tmp_path / "mine")
    assert FILE.found(policy) is None
    for place in (hub / "also.pth", hub / "nobody.pth", tmp_path / "mine" / "also.pth", tmp_path / "named"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(CONTENT)
        given = policy if place.parent != tmp_path else WeightsPolicy(policy.folder, file=place)
        assert FILE.found(given) == place
    assert FILE.found(WeightsPolicy()) == hub / "nobody.pth"
    with pytest.raises(UsageError, match=r"absent\.pth.*Nobody"):
        FILE.found(WeightsPolicy(file=tmp_path / "absent.pth"))


def test_another_hash_is_refused_or_said(tmp_path: Path) -> None:
    path = tmp_path / "nobody.pth"
    path.write_bytes(CONTENT)
    assert FILE.verified(path, WeightsPolicy()) == FILE.sha256[:8]
    assert FILE.verified(path, WeightsPolicy(allow_unverified=True)) == FILE.sha256[:8]
    path.write_bytes(CONTENT[:-1] + b"x")
    own = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    with pytest.raises(UsageError) as caught:
        FILE.verified(path, WeightsPolicy())
    for word in (str(path), own, FILE.sha256[:8], "--allow-unverified-weights"):
        assert word in str(caught.value)
    assert FILE.verified(path, WeightsPolicy(allow_unverified=True)) == f"unverified:{own}"


def test_the_whole_hash_counts_and_not_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "nobody.pth"
    path.write_bytes(CONTENT)
    near = replace(FILE, sha256=FILE.sha256[:-1] + ("0" if FILE.sha256[-1] != "0" else "1"))
    with pytest.raises(UsageError):
        near.verified(path, WeightsPolicy())


def test_a_download_is_verified_and_kept(served: Published, hub: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert served.fetched(WeightsPolicy(), said.append) == hub / "nobody.pth"
    assert (hub / "nobody.pth").read_bytes() == CONTENT
    assert served.address in said[0] and len(said) > 1
    said.clear()
    assert served.fetched(WeightsPolicy(), said.append) == hub / "nobody.pth" and said == []
    mine = tmp_path / "mine"
    (hub / "nobody.pth").unlink()
    assert served.fetched(WeightsPolicy(folder=mine), said.append) == mine / "nobody.pth"


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("fault", ["other", "short", "absent"])
def test_a_bad_download_leaves_nothing(
    served: Published, hub: Path, monkeypatch: pytest.MonkeyPatch, fault: str, allowed: bool
) -> None:
    """What comes over the network is the published file or nothing: only a file that was named may be another."""
    if fault == "other":
        monkeypatch.setattr(Server, "content", CONTENT[:-1] + b"x")
    if fault == "short":
        monkeypatch.setattr(Server, "content", CONTENT[: len(CONTENT) // 2])
    if fault == "absent":
        served = replace(served, address=f"{served.address}.not")
    with pytest.raises(UsageError) as caught:
        served.fetched(WeightsPolicy(allow_unverified=allowed), lambda text: None)
    said = str(caught.value)
    assert served.address in said and "--weights" in said and "\n" not in said
    assert {"other": "sha256", "short": "ended after", "absent": "Not Found"}[fault] in said
    assert not list(hub.iterdir()) if hub.exists() else True


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_remedy_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_extractor("inception").fetch(WeightsPolicy(folder=tmp_path), lambda text: None)
    published, said = InceptionFeatures.published, str(caught.value)
    for word in (published.file, published.address, "AIGC_LAB_WEIGHTS_DIR", str(tmp_path), "--weights", "no network"):
        assert word in said
    assert "\n" not in said and not list(tmp_path.iterdir())


def test_a_check_refuses_a_bad_file_and_asks_no_network(
    offline: None, tmp_path: Path, inception_weights: WeightsPolicy
) -> None:
    kind, digits = find_extractor("inception"), Digits(Digits.Config(), tmp_path)
    kind.check(digits, WeightsPolicy())
    kind.check(digits, inception_weights)
    with pytest.raises(UsageError, match="6726825d"):
        kind.check(digits, replace(inception_weights, allow_unverified=False))


def test_unverified_weights_are_named_in_the_identity(inception_weights: WeightsPolicy) -> None:
    digits = Digits(Digits.Config(), Path())
    kind = find_extractor("inception_64")
    made = kind.prepare(digits, cache=Path(), weights=inception_weights, device="cpu", say=print)
    path = InceptionFeatures.published.found(inception_weights)
    assert path is not None
    own = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert made.identity == f"inception-2015-12-05-d64:unverified:{own}"
