"""The registry of a home, which a command opens once and passes on."""

from contextlib import ExitStack
from functools import cached_property
from types import TracebackType

from aigc_lab.host import shared_files
from aigc_lab.host.settings import Settings
from aigc_lab.registry.engine import CONNECTIONS
from aigc_lab.registry.store import Registry


def open_registry(
    settings: Settings,
    *,
    create: bool = False,
    connected: bool = False,
    patient: bool = False,
    connections: int = CONNECTIONS,
) -> Registry:
    """The registry that a home's settings name, its files as they lie in the home; to be closed by the caller.

    Raises `UsageError` as `Registry.open` does, which explains the options, and for a `AIGC_LAB_STORE_URL` that means
    no store.
    """
    shared_files.of(settings)  # whoever has the registry's paths reads the files
    return Registry.open(
        settings.registry_url,
        home=settings.home,
        create=create,
        connected=connected,
        patient=patient,
        connections=connections,
    )


class OpenedHome:
    """The settings of a home and its registry: opened when it is first asked for, closed at the end of the block.

    For commands that may need no registry at all, or that need it at several places.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        #: whether a registry is made where there is none
        self.create = False
        self._stack = ExitStack()

    @cached_property
    def registry(self) -> Registry:
        """Raises `UsageError` as `open_registry` does, each time anew."""
        return self._stack.enter_context(open_registry(self.settings, create=self.create))

    def __enter__(self) -> "OpenedHome":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
