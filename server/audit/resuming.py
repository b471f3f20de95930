"""What the server does with log, seals and witness when it starts, and after a backup was restored."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.audit import answer_seals, hash_chain, witness
from server.audit.hash_chain import ChainEnd
from server.audit.seals import SealKeys, require_keys
from server.audit.witness import Witness

RESTORED = "restored the database"  # an entry of the log


def resume(session: Session, now: datetime) -> None:
    """Log a backup that was restored, and give a database without a witness one."""
    found = witness.witness_of(session)
    if found is None:
        return
    record = found.read([require_keys(session)], marks_only=True)
    if record.restored is not None:
        restored = record.restored
        hash_chain.lock_head(session)
        if hash_chain.end(session) != ChainEnd(restored["number"], restored["hash"]):
            return  # this is not what was restored: `server audit --verify` says so
        hash_chain.append(session, restored["who"], RESTORED, now, restored["file"], restored["reason"])
        mark = {"what": witness.RESUMED, "restored": restored["number"]}
    elif not record.began:
        mark = {"what": witness.BEGAN, "at": hash_chain.timestamp(now)}
    else:
        return
    end = hash_chain.end(session)
    # The mark comes before the entries of this transaction.
    session.info.setdefault(witness.PENDING, [])[:0] = [{**mark, "number": end.number, "hash": end.hash}]
    witness.note(session, _saved(session))


def _saved(session: Session) -> Iterator[dict[str, Any]]:
    return ({"what": witness.ANSWER, "run": run, "item": item} for run, item in answer_seals.saved(session))


def record_restore(session: Session, found: Witness, keys: SealKeys, *, who: str, file: str, reason: str = "") -> None:
    """Note that the database is a restored one, so that what it lacks is no fault; the next start logs it.

    Raises:
        RootnoteError: if the witness cannot be written.
    """
    end = _stored_end(session)
    record = {"what": witness.RESTORED, "number": end.number, "hash": end.hash}
    try:
        found.append(keys, [{**record, "who": who, "file": file, "reason": reason}])
    except OSError as error:
        raise RootnoteError(
            f"the witness {found.path} cannot be written ({error.strerror}); make it writable, because "
            "`rootnote server audit --verify` would report everything that the backup lacks."
        ) from None


def _stored_end(session: Session) -> ChainEnd:
    """The end of the log; the database may be of an earlier version."""
    if not inspect(session.connection()).has_table("log_head"):
        return ChainEnd(0, "")
    number, digest = session.execute(text("SELECT number, hash FROM log_head WHERE id = 1")).one()
    return ChainEnd(number, digest)
