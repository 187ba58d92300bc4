"""What a worker needs to do runs of a sweep: the experiment with its files of code, and what it must agree with.

The process that runs the sweep stores it in the registry. A worker takes code from there and never from a path alone:
a file that lies where the experiment names it must have the same content.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_lab import plugins
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment import code_files
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import Document
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.host.trust import gate

Json = dict[str, Any]

# Of what a result depends on, what has to be the same for all who do runs of a sweep.
_SAME = ("python", "aigc-lab", "torch", "torchvision", "numpy")
# Larger files (features of 100 MB, say) do not travel; they have to be there.
_LARGEST = 16 << 20


def opening_of(experiment: Experiment, spool: str, replicas: Mapping[str, int]) -> Json:
    """The content of an opening. `spool` names the folder that the sweep's process delivers to MLflow from; `replicas`
    says how many runs of each system are trained as one program.
    """
    files = {name: path.read_bytes() for name, path in zip(experiment.own_names, experiment.own_files, strict=True)}
    return {
        "name": experiment.name,
        "file": experiment.path,
        "data": experiment.document.data,
        "digest": experiment.digest,
        "files": {name: base64.b64encode(of).decode() for name, of in files.items() if len(of) <= _LARGEST},
        "versions": environment.versions() | environment.code(),
        "spool": spool,
        "replicas": dict(replicas),
    }


def check_versions(opening: Mapping[str, Any]) -> None:
    """Raises `UsageError` for a worker whose results would come from other code than the others'."""
    theirs, ours = opening["versions"], environment.versions()
    for name in _SAME:
        if theirs.get(name) != ours.get(name):
            raise UsageError(
                f"this worker has {name} {ours.get(name, 'none')}, and the process that runs the sweep has {name} "
                f"{theirs.get(name, 'none')}: install the same here"
            )
    commits = [facts.get("git_commit") for facts in (environment.code(), theirs)]
    if None not in commits and commits[0] != commits[1]:
        raise UsageError(
            f"this worker runs aigc-lab of commit {commits[0][:10]}, and the process that runs the sweep that of "  # type: ignore[index]
            f"{commits[1][:10]}: check the same out here"  # type: ignore[index]
        )


def experiment_of(opening: Mapping[str, Any], settings: Settings, sweep: str, *, trusted: bool) -> Experiment:
    """The experiment of a sweep in this process. Its files of code are those of the opening: where another lies at the
    path that the experiment names, or none, a copy in this home's folder of the sweep is used. Unless the user named
    them on this machine (`trusted`), they run only if the home trusts them.

    Raises `UsageError` for code that is not trusted, and `Failure` where the experiment is another here: by its data,
    or a file that does not travel.
    """
    document = Document(opening["file"], opening["data"])
    allowed = None if trusted else gate(settings.home)
    experiment = Experiment(opening["name"], document, settings.data_dir, settings.weights, allowed)
    files = {name: base64.b64decode(content) for name, content in opening["files"].items()}
    if any(not _same(name, content, Path(opening["file"]).parent) for name, content in files.items()):
        experiment.copies = code_files.folder(settings, sweep)
        code_files.place(files, experiment.copies)
    if experiment.digest != opening["digest"]:
        raise Failure(
            f"{opening['file']}: its protocol or a file that it names has changed since the sweep began, or the data "
            "here are others than where it began"
        )
    return experiment


def _same(name: str, content: bytes, folder: Path) -> bool:
    try:
        return plugins.located(name, folder).read_bytes() == content
    except (OSError, UsageError):
        return False
