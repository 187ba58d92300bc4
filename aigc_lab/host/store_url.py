"""The address of a store of files: which driver of fsspec it means, and what its errors say, without secrets."""

import errno
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import discreet, masked

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_VARIABLE = "AIGC_LAB_STORE_URL"
# Drivers that come with an extra of ours; of others, fsspec says what to install.
_EXTRAS = {"s3": "s3", "s3a": "s3"}
# A server that is gone is noticed, and asked again by `outage`, rather than within botocore for minutes.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}},
}
# Errors of drivers (botocore, aiohttp, fsspec) that mean that nobody answers. They share no base.
_AWAY = frozenset(
    [
        *("ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "EndpointConnectionError"),
        *("HTTPClientError", "ClientConnectionError", "ServerTimeoutError", "FSTimeoutError"),
        *("ConnectionError", "TimeoutError"),
    ]
)
_AWAY_NUMBERS = frozenset(
    [
        *(errno.EIO, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.ENETDOWN, errno.EHOSTDOWN, errno.ECONNABORTED, getattr(errno, "EREMOTEIO", errno.EIO)),
    ]
)
_NO_CREDENTIALS = frozenset(("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"))
_GIVE_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or key and secret in AIGC_LAB_STORE_OPTIONS"
_SECRET_KEY = re.compile(r"(?i)secret|passw|token|key|credential|sig")


def shown(url: str) -> str:
    """The address as it is said, without secrets.

    >>> shown("s3://lab/results"), shown("sftp://anna:hush@host/lab"), shown("s3://lab?secret=hush&key=AK")
    ('s3://lab/results', 'sftp://anna:***@host/lab', 's3://lab?secret=***&key=***')
    """
    said = re.sub(r"([?&][^=&#]*=)[^&#]*", r"\1***", masked(url))
    return said if said.endswith("://") else said.rstrip("/")


def opened(url: str, options: str | None, home: Path) -> "tuple[AbstractFileSystem, str]":
    """The driver of an address and the folder in it. Nothing is asked of the store.

    Raises `UsageError` for an address that means none, for a driver that is not installed, and for a folder that holds
    the home or lies in it.
    """
    said, scheme = f"{_VARIABLE}={shown(url)}", urlsplit(url).scheme
    if not scheme or "::" in url:
        raise UsageError(f"{said}: give a URL, like s3://bucket/lab or file:///srv/lab")
    if "?" in url or "#" in url:
        raise UsageError(f"{said}: what the driver is given goes into AIGC_LAB_STORE_OPTIONS, as JSON")
    import fsspec

    given = _DEFAULTS.get("s3" if scheme == "s3a" else scheme, {}) | json.loads(options or "{}")
    # A listing that is remembered does not show what other homes have published meanwhile, and a driver that is
    # remembered has the credentials of before.
    given |= {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        driver, root = fsspec.url_to_fs(url, **given)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install 'aigc-lab[{extra}]'" if extra else first_line(error)
        raise UsageError(f"{said}: the driver of {scheme} is not installed; {remedy}") from None
    except (ValueError, TypeError) as error:
        reason = unsaid(str(error), url, options)
        known = "" if scheme in fsspec.available_protocols() else "; fsspec knows s3, gs, abfs, sftp, file and others"
        raise UsageError(f"{said}: {reason}{known}") from None
    root = str(root).rstrip("/")
    if not root:
        raise UsageError(f"{said}: name a bucket or a folder, like s3://bucket/lab or file:///srv/lab")
    if is_local(driver):
        place, here = Path(root).resolve(), home.resolve()
        if place.is_relative_to(here) or here.is_relative_to(place):
            raise UsageError(f"{said}: the store and the home {home} must not lie in each other; name another folder")
    return driver, root


def is_local(driver: "AbstractFileSystem") -> bool:
    """Whether the files of a driver lie on this machine, or are mounted there."""
    protocol = driver.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def first_line(error: BaseException) -> str:
    """The words of an error in one line, or what kind it is where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def unsaid(text: str, url: str, options: str | None) -> str:
    """The text without the secrets of address and options."""
    for secret in sorted(_secrets(json.loads(options or "{}")), key=len, reverse=True):
        text = text.replace(secret, "***")
    return discreet(" ".join(text.split()), url)


def _secrets(options: Any, secret: bool = False) -> set[str]:
    """All texts in the options under keys that sound like secrets."""
    if isinstance(options, dict):
        under = ((value, secret or bool(_SECRET_KEY.search(key))) for key, value in options.items())
        return set().union(*(_secrets(value, hidden) for value, hidden in under))
    if isinstance(options, list):
        return set().union(*(_secrets(value, secret) for value in options))
    return {options} if secret and isinstance(options, str) and options else set()


def away(error: BaseException) -> str | None:
    """The reason of an error that means that the store does not answer; None for any other."""
    names = {kind.__name__ for kind in type(error).__mro__}
    known = isinstance(error, OSError) and error.errno in _AWAY_NUMBERS
    return first_line(error) if known or names & _AWAY else None


def refusal(error: BaseException) -> str:
    """What a store says that answers and does not do what it is asked, with the remedy."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _NO_CREDENTIALS:
        return f"there are no credentials for it; {_GIVE_CREDENTIALS}"
    if isinstance(error, PermissionError) and not error.filename:
        return f"it refuses ({first_line(error)}); {_GIVE_CREDENTIALS}"
    if isinstance(error, FileNotFoundError):
        return f"there is no such place ({first_line(error)}); make the bucket, or name another in {_VARIABLE}"
    return f"{first_line(error)} ({type(error).__name__}); see {_VARIABLE}"
