"""The registry of a home, which a command opens once and passes on."""

from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry


def open_registry(
    settings: Settings, *, create: bool = False, connected: bool = False, patient: bool = False
) -> Registry:
    """The registry that a home's settings name, its files as they lie in the home; to be closed by the caller.

    Raises `UsageError` as `Registry.open` does, which explains the options.
    """
    return Registry.open(settings.registry_url, home=settings.home, create=create, connected=connected, patient=patient)
