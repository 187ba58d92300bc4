"""Places of all data: one home folder, and the address of each store.

| variable | meaning | default |
|---|---|---|
| `AIGC_LAB_HOME` | the home folder | `.aigc-lab` in the working directory |
| `AIGC_LAB_REGISTRY_URL` | our registry, a SQLAlchemy URL | `sqlite:///<home>/registry.db` |
| `AIGC_LAB_OPTUNA_URL` | Optuna's storage, a SQLAlchemy URL | `sqlite:///<home>/optuna.db` |
| `MLFLOW_TRACKING_URI` | MLflow's store or server | `sqlite:///<home>/mlflow.db` |
| `AIGC_LAB_DATA_DIR` | dataset files | `<home>/data` |
| `AIGC_LAB_WEIGHTS_DIR` | pretrained feature extractors | torch's hub folder |
| `AIGC_LAB_STORE_URL` | where checkpoints, artifacts and caches are shared, an fsspec URL (`host.store`) | nowhere |
| `AIGC_LAB_STORE_OPTIONS` | what that store's driver is given, as JSON: `{"key": …, "secret": …}` | `{}` |

`AIGC_LAB_STORE_PATIENCE` is the time in seconds (60) for which a database server, or the store of files, that goes
away is waited for.
"""

import json
import math
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from aigc_lab.errors import UsageError
from aigc_lab.host.weights import WeightsPolicy


@dataclass(frozen=True)
class Settings:
    """Resolved places of one home. `load` reads the environment; nothing is created before `prepare`."""

    home: Path
    registry_url: str
    optuna_url: str
    tracking_uri: str
    data_dir: Path
    weights_dir: Path | None
    #: MLflow's address where `tracking_uri` is that of a copy, which is only read
    copied_tracking_uri: str | None = None
    #: where the home's files are shared, None for nowhere; and the JSON that its driver is given, which holds secrets
    store_url: str | None = field(default=None, repr=False)
    store_options: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, home: Path | None = None) -> "Settings":
        """Settings from `home` (the command line's `--home`) and the environment."""
        where = nameable(home, "--home").expanduser().absolute() if home else default_home()
        weights = os.environ.get("AIGC_LAB_WEIGHTS_DIR")
        store_patience()  # a typo is met here, and not in the middle of an outage
        return cls(
            home=where,
            registry_url=os.environ.get("AIGC_LAB_REGISTRY_URL") or sqlite_url(where / "registry.db"),
            optuna_url=os.environ.get("AIGC_LAB_OPTUNA_URL") or sqlite_url(where / "optuna.db"),
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(where / "mlflow.db"),
            data_dir=Path(os.environ.get("AIGC_LAB_DATA_DIR") or where / "data").expanduser().absolute(),
            weights_dir=Path(weights).expanduser().absolute() if weights else None,
            store_url=os.environ.get("AIGC_LAB_STORE_URL") or None,
            store_options=_store_options(),
        )

    @property
    def mlflow_address(self) -> str:
        """MLflow's address as it is recorded and shown, whether or not a copy of it is read."""
        return masked(self.copied_tracking_uri or self.tracking_uri)

    @property
    def weights(self) -> WeightsPolicy:
        """Policy for pretrained weights: published files only, from the folder of the environment before torch's."""
        return WeightsPolicy(self.weights_dir)

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def shared_cache(self) -> Path:
        """Cache of commands that need no home: the home's where it exists, else the user's."""
        if self.home.is_dir():
            return self.cache
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aigc-lab"

    @property
    def checkpoints(self) -> Path:
        return self.home / "checkpoints"

    @property
    def models(self) -> Path:
        return self.home / "models"

    def prepare(self) -> None:
        """Creates the home's folders. Raises `UsageError` when the home cannot be written."""
        try:
            # Results are their owner's until they are shared; another command may make the home at the same instant.
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in (self.home, self.artifacts, self.cache, self.checkpoints):
                path.mkdir(parents=True, exist_ok=True)
            probe = self.home / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"home {self.home} cannot be written ({error.strerror}); name another with --home or AIGC_LAB_HOME"
            ) from None


def default_home() -> Path:
    """The home of a command that names none. Raises `UsageError` for a name that no folder can have."""
    return nameable(Path(os.environ.get("AIGC_LAB_HOME") or ".aigc-lab"), "--home").expanduser().absolute()


def store_patience() -> float:
    """Seconds for which a database server that goes away is waited for. Raises `UsageError` for what is no number."""
    text = os.environ.get("AIGC_LAB_STORE_PATIENCE") or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"AIGC_LAB_STORE_PATIENCE={text!r:.40}: give seconds, like 60; 0 waits for nothing")
    return seconds


def _store_options() -> str | None:
    """JSON of the store's options. Raises `UsageError` for what is no object, without quoting what may be a secret."""
    text = os.environ.get("AIGC_LAB_STORE_OPTIONS") or None
    try:
        well = text is None or isinstance(json.loads(text), dict)
    except ValueError:
        well = False
    if not well:
        raise UsageError('AIGC_LAB_STORE_OPTIONS is no JSON object; write it like {"key": "…", "secret": "…"}')
    return text


# What an address does not take as it is: percent codes are decoded, `?` and `#` end the path, Optuna fills in braces.
_CODES = {ord(letter): f"%{ord(letter):02X}" for letter in "%?#{}"}


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy address of a SQLite file, whatever its folder is called.

    >>> sqlite_url(Path("/srv/home/mlflow.db"))
    'sqlite:////srv/home/mlflow.db'
    >>> sqlite_url(Path("/srv/feature%2Fgan/mlflow.db"))
    'sqlite+pysqlite:////srv/feature%252Fgan/mlflow.db'
    """
    coded = str(path).translate(_CODES)
    # MLflow takes what follows `sqlite:///` for a path as it is, and would make a folder of the coded name.
    return f"{'sqlite' if coded == str(path) else 'sqlite+pysqlite'}:///{coded}"


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite address, the inverse of `sqlite_url`; None for a server and for a database in memory."""
    scheme, _, rest = url.partition("://")
    name = unquote(rest.partition("?")[0].removeprefix("/"))
    return Path(name) if scheme.partition("+")[0] == "sqlite" and name not in ("", ":memory:") else None


# Of one part of a path, and of a whole one, in bytes: what file systems take.
_LONGEST, _LONGEST_PATH = 255, 4095


def nameable(path: Path, option: str) -> Path:
    """The path of an option. Raises `UsageError` for a path that no file can have, before any work is done."""
    text = f"{option} {str(path)!r:.60}"
    if "\0" in str(path):
        raise UsageError(f"{text}: holds a zero byte, which no file's name can")
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _LONGEST:
        raise UsageError(f"{text}: a name has {_LONGEST} bytes at most, and this one has {longest}")
    if len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        raise UsageError(f"{text}: a path has {_LONGEST_PATH} bytes at most")
    if any(not part.strip() for part in path.parts):
        raise UsageError(f"{text}: a part of it is nothing but spaces")
    return path


def as_typed(command: str, settings: Settings, home: Path | None) -> str:
    """Command line as the user has to type it: with `--home` where it is needed, and through uv if this process runs
    so.
    """
    run = ""
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        root = Path(__file__).resolve().parents[2]
        inside = Path.cwd().resolve().is_relative_to(root)
        run = "uv run " if inside else f"uv run --project {shlex.quote(str(root))} "
    option = f" --home {shlex.quote(str(home))}" if home and default_home() != settings.home else ""
    return f"{run}{command}{option}"


# What a secret is called in the query of an address, or in a driver's own words.
_SECRET = re.compile(
    r"(?i)([\w.-]*(?:passw|pwd|token|secret|api_?key|access_?key|credential|signature)[\w.-]*=)[^&;#\s]+"
)


def masked(url: str) -> str:
    """URL without secrets: passwords become `***`, wherever they stand. Never raises, since URLs that cannot be parsed
    are shown, too.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        user, at, host = url.rpartition("@")
        return _SECRET.sub(r"\1***", f"***@{host}" if at and ":" in user else url)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and "@" in rest and re.search(r"^[^\[].*:\D|^[^\[]*:$", authority):
        authority = rest[: rest.rindex("@") + 1]  # no port follows the colon, so it is a password that holds a slash
    user, at, host = authority.rpartition("@")
    name, colon, _ = user.partition(":")
    # Servers take tokens for names; databases do not.
    credentials = f"{name}:***" if colon else "***" if scheme in ("http", "https") else name
    tail = rest[len(authority) :]
    path = re.split("[?#]", tail, maxsplit=1)[0]
    query = _SECRET.sub(r"\1***", tail[len(path) :])
    return f"{scheme}://{credentials + at if at else ''}{host}{path}{query}"


def discreet(text: str, url: str) -> str:
    """Text, such as a driver's error, without the secrets of `url` and of other URLs that it quotes."""
    rest = url.partition("://")[2]
    password = rest.rpartition("@")[0].partition(":")[2]
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return _SECRET.sub(r"\1***", re.sub(r"(://[^/\s:@]*):[^\s]*@", r"\1:***@", text.replace(url, masked(url))))
