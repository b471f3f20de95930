"""What lets a worker in before the marketplace has listed them: a limited number of unconfirmed runs, or a lookup.

Nobody vouches for what an address says, so only a few invented runs may hold places at a time: a few from each network
address, and a part of all places. Beyond that the marketplace is asked for its list, if this process may ask.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable

from server.recruiting.marketplaces.base import Marketplace, ReportedSubmission
from server.web.rate_limits import Limit

PER_ADDRESS, ONE_MORE_SECONDS = 3, 20 * 60.0
LEAST, SHARE = 5, 4  # of all places, unconfirmed runs may hold a quarter, and five in any case
WAIT_SECONDS = 3.0
PAUSE_SECONDS = 2.0
Listing = tuple[ReportedSubmission, ...]
log = logging.getLogger(__name__)


class UnconfirmedLimit:
    """How many unconfirmed runs one network address may begin: three, and one more every twenty minutes.

    Addresses are keyed hashes in this process's memory and are never stored. A rehearsal has no such limit, because
    its listeners share one address.
    """

    def __init__(self, *, limited: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(32)
        self._limit = Limit(1 / ONE_MORE_SECONDS, PER_ADDRESS, clock) if limited else None

    def admits(self, network: str) -> bool:
        """Count one more run from this network; False if it has begun too many."""
        if self._limit is None:
            return True
        name = hashlib.blake2b(network.encode(), key=self._key, digest_size=16).hexdigest()
        return self._limit.take(name) == 0


def most_unconfirmed(places: int, *, lists_held: bool) -> int:
    """How many places unconfirmed runs may hold; all, where a marketplace lists nobody before they submit."""
    return min(places, max(LEAST, places // SHARE)) if lists_held else places


class SubmissionLookup:
    """The marketplace's list of a posting's submissions, fetched in the background and kept for a moment.

    One request at a time waits for it, and only a few seconds: strangers must not be able to occupy the server, or to
    use up the marketplace's patience.
    """

    def __init__(self, marketplace: Marketplace, *, pause: float = PAUSE_SECONDS) -> None:
        self._marketplace, self._pause = marketplace, pause
        self._listings: dict[str, Listing] = {}
        self._began: dict[str, float] = {}
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._running: dict[str, threading.Thread] = {}

    def find(self, opening: str, worker: str, submission: str) -> Listing | None:
        """The list that has this worker's submission; None if there is none, or it cannot be fetched now."""
        if not self._marketplace.capabilities.lists_held:
            return None
        if (found := self._kept(opening, worker, submission)) is not None:
            return found
        if not self._turn.acquire(blocking=False):
            return None
        try:
            until = time.monotonic() + WAIT_SECONDS
            while (left := until - time.monotonic()) > 0:
                thread = self._fetch_soon(opening)
                if thread is None:
                    time.sleep(min(0.1, left))
                    continue
                thread.join(left)
                if not thread.is_alive():
                    break
        finally:
            self._turn.release()
        return self._kept(opening, worker, submission)

    def _kept(self, opening: str, worker: str, submission: str) -> Listing | None:
        listing = self._listings.get(opening, ())
        return listing if any((one.worker, one.id) == (worker, submission) for one in listing) else None

    def _fetch_soon(self, opening: str) -> threading.Thread | None:
        """Start fetching; None if the last time is too recent."""
        with self._lock:
            running = self._running.get(opening)
            if running is not None and running.is_alive():
                return running
            if time.monotonic() - self._began.get(opening, float("-inf")) < self._pause:
                return None
            self._began[opening] = time.monotonic()
            thread = threading.Thread(target=self._fetch, args=(opening,), daemon=True)
            self._running[opening] = thread
            thread.start()
            return thread

    def _fetch(self, opening: str) -> None:
        try:
            self._listings[opening] = self._marketplace.submissions(opening).submissions
        except Exception as error:  # whatever it is, the listener waits and the next one tries again
            log.warning("arrivals cannot be looked up: %s", error)
        finally:
            self._marketplace.disconnect()
