"""Which home a sweep belongs to: the one that its files lie in, and that alone may write it."""

from dataclasses import asdict, dataclass

from sqlalchemy import insert, select, update

from aigc_lab.registry.database import repeated
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Attempt, Home, Run, Sweep


@dataclass(frozen=True)
class StoredHome:
    """A home as it is recorded: its id, its absolute path, and the machine that it lay on when it last wrote."""

    id: str
    path: str
    host: str


@repeated
def homes(registry: Registry) -> list[StoredHome]:
    """Every home that has written here."""
    with registry.read() as connection:
        return [StoredHome(**row) for row in connection.execute(select(Home).order_by(Home.c.id)).mappings()]


def home(registry: Registry, identity: str) -> StoredHome | None:
    """The home of this id; None when it has never written here."""
    return next((each for each in homes(registry) if each.id == identity), None)


@repeated
def owners(registry: Registry) -> dict[str, str]:
    """Sweep -> the id of its home, of every sweep that has one."""
    with registry.read() as connection:
        rows = connection.execute(select(Sweep.c.id, Sweep.c.home_id).where(Sweep.c.home_id.is_not(None)))
        return {sweep: owner for sweep, owner in rows}


@repeated
def has_begun(registry: Registry, sweep: str) -> bool:
    """Whether some run of the sweep was begun, so that its files lie somewhere."""
    begun = select(Attempt.c.number).join(Run, Run.c.id == Attempt.c.run_id).where(Run.c.sweep_id == sweep).limit(1)
    with registry.read() as connection:
        return connection.scalar(begun) is not None


@repeated
def settle(registry: Registry, stored: StoredHome) -> None:
    """Records where a home lies."""
    with registry.write() as connection:
        changed = connection.execute(
            update(Home).where(Home.c.id == stored.id).values(path=stored.path, host=stored.host)
        )
        if not changed.rowcount:
            connection.execute(insert(Home).values(asdict(stored)))


@repeated
def claim(registry: Registry, sweep: str, identity: str) -> str | None:
    """Records this home as the owner of the sweep unless it has one. Returns the owner, None where there is no such
    sweep.
    """
    unclaimed = (Sweep.c.id == sweep, Sweep.c.home_id.is_(None))
    with registry.write() as connection:
        connection.execute(update(Sweep).where(*unclaimed).values(home_id=identity))
        return connection.scalar(select(Sweep.c.home_id).where(Sweep.c.id == sweep))


@repeated
def adopt(registry: Registry, identity: str, *, sweeps: list[str]) -> None:
    """Records this home as the owner of these sweeps, whatever owner they have."""
    with registry.write() as connection:
        connection.execute(update(Sweep).where(Sweep.c.id.in_(sweeps)).values(home_id=identity))
