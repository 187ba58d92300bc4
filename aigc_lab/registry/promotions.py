"""Writing promoted models: their versions, and the aliases that point at them."""

from datetime import datetime

from sqlalchemy import insert, select, update

from aigc_lab.errors import Failure
from aigc_lab.registry import statements
from aigc_lab.registry.database import Database, repeated
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.tables import AliasEvent, Promotion


class PromotionRecords(Database):
    """The part of `Registry` that records promoted models."""

    def promote(self, promotion: StoredPromotion) -> bool:
        """Records a version; False when it was recorded before. Raises `Failure` when its number stands for another."""
        return self._promote(promotion, statements.now())

    @repeated
    def _promote(self, promotion: StoredPromotion, now: datetime) -> bool:
        with self.write() as connection:
            this = (Promotion.c.model == promotion.model, Promotion.c.version == promotion.version)
            stored = connection.scalar(select(Promotion.c.digest).where(*this))
            if stored is not None and connection.scalar(select(Promotion.c.created_at).where(*this)) == now:
                return True  # the answer to its commit was lost
            if stored not in (None, promotion.digest):
                raise Failure(
                    f"version {promotion.version} of {promotion.model} is another model in this registry;"
                    " promote under another --name"
                )
            if stored is None:
                row = vars(promotion) | {"path": self.recorded(promotion.path), "created_at": now}
                connection.execute(insert(Promotion).values(row))
            else:  # what is forced or selected again is so for the new reason
                grounds = {"reason": promotion.reason, "selection": promotion.selection}
                if given := {key: value for key, value in grounds.items() if value is not None}:
                    connection.execute(update(Promotion).where(*this).values(given))
        return stored is None

    @repeated
    def force(self, model: str, version: int, reason: str) -> None:
        """Stores why a version was promoted in spite of what is said of it, in place of an earlier reason."""
        with self.write() as connection:
            this = (Promotion.c.model == model, Promotion.c.version == version)
            connection.execute(update(Promotion).where(*this).values(reason=reason))

    def point(self, model: str, alias: str, version: int, by: str) -> int | None:
        """Points an alias at a version and returns the one it pointed at before. Where it points already, no event."""
        return self._point(model, alias, version, by, statements.now())

    @repeated
    def _point(self, model: str, alias: str, version: int, by: str, now: datetime) -> int | None:
        with self.write() as connection:
            # Not the event of this moment: it is this one's, and the answer to its commit was lost.
            newest = (
                select(AliasEvent.c.number, AliasEvent.c.version)
                .where(AliasEvent.c.model == model, AliasEvent.c.alias == alias, AliasEvent.c.at != now)
                .order_by(AliasEvent.c.number.desc())
                .limit(1)
            )
            row = connection.execute(newest).first()
            number, before = (0, None) if row is None else row
            if before != version:
                event = {"model": model, "alias": alias, "number": number + 1, "version": version}
                statements.insert_new(connection, AliasEvent, **event, at=now, by=by)
        return None if before is None else int(before)
