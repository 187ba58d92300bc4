"""The home that a sweep belongs to, and the refusal of others' writes; every command asks before it changes something.

A sweep belongs to the home with its files. Several homes may share a registry and read each other's sweeps. A home has
an id in a file, which is moved and copied with it, and the registry has the path of each id: the original of a copied
home is still at that path, that of a moved one is not.

With a store of files (`AIGC_LAB_STORE_URL`) the files lie there, and so does the id: all homes that share a store are
one home. Its path is the address of the store.

A home that is not at its path may have been moved, not be mounted, or be gone, which nobody can see. A sweep goes over
to another home only where its files lie, or by name. A copy at the same path on another machine cannot be told from a
folder that both machines mount, and counts as the same home.
"""

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import make_url

from aigc_lab.errors import UsageError
from aigc_lab.host import shared_files
from aigc_lab.host.files import write_atomically
from aigc_lab.host.settings import Settings, masked
from aigc_lab.registry import homes
from aigc_lab.registry.engine import folder_of
from aigc_lab.registry.homes import StoredHome
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import relocation

_IDENTITY = "home-id"
# The host of a home whose files lie in a store.
_EVERY_MACHINE = "every machine"
_RUN_THERE = (
    ", and this one may only read it; run this there, or export it there and import it into a home with a registry of "
    "its own"
)


# ---- what commands ask


def check_home(registry: Registry, settings: Settings) -> None:
    """Raises `UsageError` for a home that was moved or copied and would write to another home's place."""
    relocation.check_relocation(settings)
    original = original_of(registry, settings)
    if original is None or self_contained(settings):
        return
    if lives_on(original):
        raise UsageError(
            f"home {settings.home} is a copy of {original.path}, which is still there, and both use "
            f"{masked(settings.registry_url)}; run this there, or make this a home of its own, which reads the sweeps "
            "of the other and begins others: aigc-lab doctor --repair"
        )
    raise UsageError(
        f"home {settings.home} was at {original.path} on {original.host} when it last wrote; if it is not used there "
        "any more, aigc-lab doctor --repair records that it lies here now"
    )


def refuse(registry: Registry, settings: Settings, sweep: str) -> None:
    """Raises `UsageError` if this home may not write the sweep. Changes nothing."""
    check_home(registry, settings)
    refuse_foreign(registry, settings, sweep)


def refuse_foreign(registry: Registry, settings: Settings, sweep: str, *, remedy: str = _RUN_THERE) -> None:
    """Raises `UsageError` for a sweep whose files lie in another home. `remedy` ends the sentence "it belongs to home
    …", unless that home is gone.
    """
    owner = homes.owners(registry).get(sweep)
    if owner is None:
        elsewhere = not _has_files(settings, sweep) and not _own(settings.registry_url, settings.home)
        if elsewhere and homes.has_begun(registry, sweep):
            raise UsageError(
                f"sweep {sweep} was begun in a home that is not recorded, and its files are not in {settings.home}; "
                f"run this in the home that has them (if they are gone for good: aigc-lab doctor --adopt {sweep})"
            )
        return
    if owner != _known(registry, settings):
        raise _foreign(registry, settings, sweep, owner, remedy)


def claim(registry: Registry, settings: Settings, sweep: str) -> None:
    """Makes a sweep without an owner this home's, after `refuse`. Raises `UsageError` for a home that cannot be
    written, before its registry fails with the database's message.
    """
    refuse(registry, settings, sweep)
    settings.prepare()
    mine = identity(registry, settings)
    here = _here(settings, mine)
    if here not in homes.homes(registry):
        homes.settle(registry, here)
    owner = homes.claim(registry, sweep, mine)
    if owner not in (None, mine):
        raise _foreign(registry, settings, sweep, str(owner))


def _foreign(registry: Registry, settings: Settings, sweep: str, owner: str, remedy: str = _RUN_THERE) -> UsageError:
    home = homes.home(registry, owner)
    if home is None:
        return UsageError(f"sweep {sweep} belongs to another home ({owner}); run this there")
    if _is_store(home):
        return UsageError(f"sweep {sweep} belongs to the homes that share {home.path}; set AIGC_LAB_STORE_URL to that")
    shared = shared_files.of(settings)
    if shared is not None and home.path == str(settings.home.resolve()) and _keeps(settings.home, sweep):
        return UsageError(
            f"sweep {sweep} lies in {home.path}, and not in {shared.shown}; publish it there: "
            f"aigc-lab doctor --adopt {sweep}"
        )
    there = lives_on(home)
    where = home.path if home.host == socket.gethostname() else f"{home.path} on {home.host}"
    if there is False and _keeps(settings.home, sweep):
        remedy = ", which is not there, and its files lie here: aigc-lab doctor --repair takes it over"
    elif there is False:
        remedy = f", which is not there; {_if_moved([sweep])}"
    elif there is None:
        remedy += f" (if that home is gone for good: aigc-lab doctor --adopt {sweep})"
    elif _keeps(settings.home, sweep) and not _keeps(Path(home.path), sweep):
        remedy += " (its files lie here and not there: aigc-lab doctor --repair)"
    elif _keeps(settings.home, sweep):
        remedy += f" (both have files of it; if those here are the right ones: aigc-lab doctor --adopt {sweep})"
    return UsageError(f"sweep {sweep} belongs to home {where}{remedy}")


# ---- which home this is


def identity(registry: Registry, settings: Settings) -> str:
    """The id of this home, made if it has none. Raises `UsageError` if the home cannot be written."""
    home_id = _known(registry, settings) or secrets.token_hex(16)
    shared = shared_files.of(settings)
    if shared is not None:
        return shared.identity() or shared.identify(home_id)
    if _read(settings.home) != home_id:
        write_identity(settings, home_id)
    return home_id


def write_identity(settings: Settings, identity: str) -> None:
    """Writes the id of this home. Raises `UsageError` if the home cannot be written."""
    settings.prepare()
    write_atomically(settings.home / _IDENTITY, f"{identity}\n".encode())


def _known(registry: Registry, settings: Settings) -> str | None:
    """The id of this home; if its file is lost, the id that the registry has for its path."""
    here = _here(settings, "")
    return _stored(settings) or next(
        (each.id for each in homes.homes(registry) if (each.path, each.host) == (here.path, here.host)), None
    )


def _stored(settings: Settings) -> str | None:
    """The id in the file of this home, or in the store that it shares."""
    shared = shared_files.of(settings)
    return _read(settings.home) if shared is None else shared.identity()


def _read(home: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return (home / _IDENTITY).read_text("ascii").strip() or None
    return None


def _here(settings: Settings, identity: str) -> StoredHome:
    shared = shared_files.of(settings)
    if shared is not None:
        return StoredHome(identity, shared.shown, _EVERY_MACHINE)
    return StoredHome(identity, str(settings.home.resolve()), socket.gethostname())


def _is_store(home: StoredHome) -> bool:
    return home.host == _EVERY_MACHINE


def original_of(registry: Registry, settings: Settings) -> StoredHome | None:
    """The home that this one may be a copy of: recorded with its id at another path, and not gone from there."""
    mine = _stored(settings)
    recorded = None if mine is None else homes.home(registry, mine)
    if recorded is None or recorded.path == _here(settings, "").path or lives_on(recorded) is False:
        return None
    return recorded


def lives_on(home: StoredHome) -> bool | None:
    """Whether a home still lies at its recorded path; None if that cannot be seen from this machine."""
    if _is_store(home):
        return None
    if _read(Path(home.path)) == home.id:
        return True
    return False if home.host == socket.gethostname() else None


def self_contained(settings: Settings) -> bool:
    """Whether the stores that only one home may write lie in this one, so that its copy has its own."""
    return _own(settings.registry_url, settings.home) and _own(settings.optuna_url, settings.home)


def _own(url: str, home: Path) -> bool:
    if make_url(url).get_backend_name() != "sqlite":
        return False
    folder = folder_of(url)
    return folder is not None and folder.resolve().is_relative_to(home.resolve())


def remedy(settings: Settings, sweeps: list[str]) -> str:
    """The remedy for sweeps of a home that is not at its path."""
    if any(_keeps(settings.home, sweep) for sweep in sweeps):
        return "aigc-lab doctor --repair takes over those whose files lie here, and says what to do about others"
    return _if_moved(sweeps)


def _if_moved(sweeps: list[str]) -> str:
    """The remedy for sweeps of a home that cannot be seen from this machine."""
    adopting = ", ".join(f"aigc-lab doctor --adopt {sweep}" for sweep in sweeps[:3]) + (
        ", …" if len(sweeps) > 3 else ""
    )
    return f"if it was moved, run aigc-lab doctor --repair there; if it is gone for good: {adopting}"


def _keeps(home: Path, sweep: str) -> bool:
    """Whether a home has results of the sweep: more than records that wait, or an empty folder."""
    return any(files for place in ("checkpoints", "artifacts") for _, _, files in os.walk(home / place / sweep))


def _has_files(settings: Settings, sweep: str) -> bool:
    places = (settings.checkpoints, settings.artifacts, settings.home / "spool")
    shared = shared_files.of(settings)
    published = shared is not None and any(shared.paths(place / sweep) for place in places[:2])
    return published or any(os.path.isdir(place / sweep) for place in places)


# ---- what `doctor --repair` does


def repair(registry: Registry, settings: Settings) -> list[str]:
    """Settles the identity of this home, and takes over sweeps whose files lie here and not in their own home. Returns
    a sentence for each.
    """
    said = []
    original = original_of(registry, settings)
    if original is not None and lives_on(original):
        fresh = secrets.token_hex(16)
        mine = [sweep for sweep, owner in homes.owners(registry).items() if owner == original.id]
        write_identity(settings, fresh)
        homes.settle(registry, _here(settings, fresh))
        said.append(f"this home is a copy of {original.path}, and a home of its own now")
        if self_contained(settings):  # the copies of its sweeps are its own
            homes.adopt(registry, fresh, sweeps=mine)
    elif (before := original or _moved_from(registry, settings)) is not None:
        homes.settle(registry, _here(settings, before.id))
        said.append(f"this home, which was at {before.path} on {before.host}, lies here now")
    return [*said, *_take_over(registry, settings)]


def _moved_from(registry: Registry, settings: Settings) -> StoredHome | None:
    """The path at which the registry has this home, if it is another."""
    mine = _stored(settings)
    recorded = None if mine is None else homes.home(registry, mine)
    return recorded if recorded is not None and recorded.path != _here(settings, "").path else None


def _take_over(registry: Registry, settings: Settings) -> list[str]:
    """Adopts sweeps of other homes whose files lie here and not there, and returns a sentence for each home. A home
    that is there without the files of its sweep adopted it while this one was away.
    """
    said = []
    for home, sweeps in others(registry, settings).items():
        there = lives_on(home)
        if there is None:
            continue
        lie_here = [sweep for sweep in sweeps if _keeps(settings.home, sweep)]
        lie_here = [sweep for sweep in lie_here if not (there and _keeps(Path(home.path), sweep))]
        if lie_here:
            adopt(registry, settings, lie_here)
            said.append(f"{', '.join(lie_here)} of home {home.path}, whose files lie here, belong to this home now")
        left = [sweep for sweep in sweeps if sweep not in lie_here]
        if left and not there:
            said.append(f"home {home.path} is not there, nor are its files here: {', '.join(left)}; {_if_moved(left)}")
    return said


def adopt(registry: Registry, settings: Settings, sweeps: list[str]) -> None:
    """Makes sweeps this home's, whichever home they belonged to. What lies here of them is published, if this home has
    a store.
    """
    mine = identity(registry, settings)
    shared = shared_files.of(settings)
    if shared is not None:
        places = [place / sweep for sweep in sweeps for place in (settings.checkpoints, settings.artifacts)]
        shared.publish(*(file for place in (*places, settings.models) for file in shared_files.files_below(place)))
    homes.settle(registry, _here(settings, mine))
    homes.adopt(registry, mine, sweeps=sweeps)


def others(registry: Registry, settings: Settings) -> dict[StoredHome, list[str]]:
    """The other homes of this registry -> their sweeps."""
    mine, homes_by_id = _known(registry, settings), {each.id: each for each in homes.homes(registry)}
    sweeps: dict[StoredHome, list[str]] = {}
    for sweep, owner in sorted(homes.owners(registry).items()):
        if owner != mine and owner in homes_by_id:
            sweeps.setdefault(homes_by_id[owner], []).append(sweep)
    return sweeps
