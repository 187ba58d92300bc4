"""Promoted versions and their aliases."""

from dataclasses import replace
from pathlib import Path

import pytest
from registries import a_run, count, url_in
from sqlalchemy.exc import IntegrityError

from aigc_lab.errors import Failure
from aigc_lab.registry.models import list_models
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import (
    AliasEvent,
    Promotion,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(url_in(tmp_path))


def test_promotions_and_aliases_may_be_replayed_and_keep_their_history(registry: Registry) -> None:
    run = a_run(registry)
    versions = [StoredPromotion("m", n, run, "last", f"d{n}", "ab", "p", "u", "m-1") for n in (1, 2)]
    assert [registry.promote(version) for version in (*versions, *versions)] == [True, True, False, False]
    assert [registry.point("m", "champion", version, "me") for version in (1, 1, 2, 2, 1)] == [None, 1, 1, 2, 2]
    rows = list_models(registry)
    assert [(row["version"], row["aliases"]) for row in rows] == [(2, []), (1, ["champion"])]
    assert [len(row["alias_history"]) for row in rows] == [1, 2]
    assert list_models(registry, "other") == []
    shown = show_run(registry, run)["promotions"]
    assert shown[1] == {
        "model": "m",
        "version": 1,
        "checkpoint": "last",
        "aliases": ["champion"],
        "reason": None,
        "selection": None,
    }
    with pytest.raises(Failure, match="version 1 of m is another model"):
        registry.promote(replace(versions[0], digest="other"))
    with pytest.raises(IntegrityError):
        registry.point("m", "x", 3, "me")
    with pytest.raises(IntegrityError):
        registry.promote(replace(versions[0], version=3, run_id="no such run"))
    assert count(registry, Promotion) == 2 and count(registry, AliasEvent) == 3
