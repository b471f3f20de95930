"""The study on Prolific: finding it by its internal name, drafting, publishing, adding places, closing.

What may be done follows from the status. Places are added when it is ACTIVE, AWAITING REVIEW, or COMPLETED because all
places were filled; a study that was stopped with places left would offer those again too, so it is left alone. STOP
exists for ACTIVE and PAUSED only. While a study is published, paused or scheduled, its untaken places still count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from embeddings.wording import counted
from server.db.enums import SubmissionStatus
from server.recruiting.marketplaces.base import (
    MarketplaceError,
    OrderRefusedError,
    PostingOrder,
    PostingStatus,
    ReportedSubmission,
    ScreenOutPlan,
)
from server.recruiting.marketplaces.prolific_account import ProlificAccount
from server.recruiting.marketplaces.prolific_api import ProlificApiError, ProlificClient
from server.recruiting.marketplaces.prolific_draft import ProlificDraft, StudyVariant, slots_of, variants, with_slots

RUNNING = ("ACTIVE", "PAUSED", "AWAITING REVIEW", "PUBLISHING", "SCHEDULED")
NOT_TAKING = (SubmissionStatus.RETURNED, SubmissionStatus.TIMED_OUT)  # all others fill a place
PROBE = "rootnote probe"
NOTES = {
    "UNPUBLISHED": "The study is a draft on Prolific: preview it there, then publish it with `rootnote server open`.",
    "SCHEDULED": "The study is scheduled on Prolific; it offers its places from the time that was set there.",
    "PAUSED": "The study is paused on Prolific; press Start on its page there to go on.",
}


class ProlificPlaces:
    """The places of one launch at a time."""

    def __init__(self, api: ProlificClient, account: ProlificAccount, drafts: ProlificDraft) -> None:
        self._api, self._account, self._drafts = api, account, drafts
        self._variant: StudyVariant | None = None  # what the workspace took, once it was tried

    # ------------------------------------------------------------------ opening

    def open(self, order: PostingOrder) -> str:
        """Draft and publish the launch's study, or add places to it; the same order adds none again."""
        study = self.draft(order)
        id_, status, places = str(study["id"]), str(study["status"]), int(study["total_available_places"])
        if status == "UNPUBLISHED":
            if places < order.total and not order.only_for:
                self._api.patch(f"/studies/{id_}/", {"total_available_places": order.total})
            self.publish(id_)
        elif not order.only_for:
            submissions = self._taken_places(id_)
            wanted = order.total + _added_by_screen_outs(order, places, submissions.count("SCREENED OUT"))
            if wanted > places:
                if status == "COMPLETED" and len(submissions) < places:
                    raise OrderRefusedError(
                        f"the study {id_} was stopped on Prolific with {counted(places - len(submissions), 'place')} "
                        "left, and a stopped study would offer those again; make a new launch in a new database "
                        "(ROOTNOTE_DATABASE_URL)."
                    )
                self._api.patch(f"/studies/{id_}/", {"total_available_places": wanted})
        return id_

    def draft(self, order: PostingOrder) -> dict[str, Any]:
        """The launch's study, created as a draft if there is none."""
        earlier = self._api.whole("/studies/")
        found = self._find(order, earlier)
        if found is not None:
            return self._study(str(found["id"]))
        blocked = [str(one["id"]) for one in earlier if _is_earlier_launch(one, order)]
        group = "" if order.only_for else self._account.group(self._drafts.group_name())
        name = _name(order)
        return self._create(lambda variant: self._body(order, name, variant, blocked=blocked, group=group), order)

    def update_draft(self, id_: str, order: PostingOrder) -> None:
        """Bring a draft up to date; a study that is published stays as it is."""
        if self._status(id_) != "UNPUBLISHED":
            return
        blocked = [str(one["id"]) for one in self._api.whole("/studies/") if _is_earlier_launch(one, order)]
        group = self._account.group(self._drafts.group_name())
        pays = bool(order.screen_outs and self._drafts.screen_out_cents)
        self._try(
            pays,
            lambda variant: self._api.patch(
                f"/studies/{id_}/", self._body(order, _name(order), variant, blocked=blocked, group=group)
            ),
        )

    def discard_draft(self, id_: str) -> None:
        """Delete a draft; one that cannot be deleted costs nothing."""
        with contextlib.suppress(ProlificApiError):
            self._api.delete(f"/studies/{id_}/")

    def _find(self, order: PostingOrder, listed: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The study that an order belongs to; of two drafts (a request that arrived twice) the older.

        Raises:
            MarketplaceError: if another database has launched this study.
        """
        for one in listed:
            if _is_earlier_launch(one, order) and one.get("status") in RUNNING:
                raise MarketplaceError(
                    f"another database has launched this study on Prolific already ({one['id']}); use that database, "
                    "or stop that study first."
                )
        own = [one for one in listed if one.get("internal_name") == _name(order)]
        by_age = sorted(own, key=lambda one: (one.get("status") == "UNPUBLISHED", str(one.get("date_created", ""))))
        return by_age[0] if by_age else None

    def _body(self, order: PostingOrder, name: str, variant: StudyVariant, **more: Any) -> dict[str, Any]:
        return self._drafts.body(order, name, variant, project=self._account.project(), **more)

    def _create(self, body: Callable[[StudyVariant], dict[str, Any]], order: PostingOrder) -> dict[str, Any]:
        """Create a draft with as much of what is wanted as the workspace may use."""
        pays = bool(order.screen_outs and self._drafts.screen_out_cents)
        return self._try(pays, lambda variant: self._api.post("/studies/", body(variant)))

    def _try(self, pays: bool, request: Callable[[StudyVariant], dict[str, Any]]) -> dict[str, Any]:
        """Send a study with as much of what is wanted as the workspace may use."""
        tried = list(variants(pays, is_secure=True))
        if self._variant in tried:
            tried = tried[tried.index(self._variant) :]
        for variant in tried:
            try:
                study = request(variant)
            except ProlificApiError as refused:
                if refused.status not in (400, 403) or variant == tried[-1]:
                    raise
            else:
                self._variant = variant
                return study
        raise AssertionError("the last variant answers or raises")

    def publish(self, study: str) -> None:
        """Publish a draft; one that is published already stays as it is."""
        if self._status(study) != "UNPUBLISHED":
            return
        try:
            self._api.post(f"/studies/{study}/transition/", {"action": "PUBLISH"}, retry=True)
        except ProlificApiError:
            # After a request without an answer, it may already be published.
            if self._status(study) not in RUNNING:
                raise

    def screen_out_plan(self, *, ask: bool, pays: bool) -> ScreenOutPlan:
        """How screen-outs are paid; the workspace is asked by a draft that is deleted at once."""
        if pays:
            return self._drafts.plan(True)
        if self._variant is None and ask:
            probe = PostingOrder("probe", "probe-0", 1, 1, self._drafts.reward, "https://example.org", 1, screen_outs=1)
            study = self._create(lambda variant: self._body(probe, PROBE, variant), probe)
            with contextlib.suppress(MarketplaceError):  # a draft that stays costs nothing
                self._api.delete(f"/studies/{study['id']}/")
        known = None if self._variant is None else self._variant.pays_screen_outs
        return self._drafts.plan(known if self._drafts.screen_out_cents else False)

    def notes(self) -> tuple[str, ...]:
        """What the workspace may not use, as far as it was tried."""
        if self._variant is None or self._variant.is_secure:
            return ()
        return ("This workspace has no signed addresses: whoever arrives counts once Prolific lists the submission.",)

    # ------------------------------------------------------------------ the study as it is

    def status(self, id_: str, submissions: tuple[ReportedSubmission, ...]) -> PostingStatus:
        """The state of a study with these submissions.

        Untaken places follow from the submissions, so that both are of the same moment: somebody who returns a place
        while we ask is not counted twice.
        """
        study = self._study(id_)
        status, places, slots = str(study["status"]), int(study["total_available_places"]), slots_of(study)
        taken = sum(one.status not in NOT_TAKING for one in submissions)
        taken = min(taken, int(study.get("places_taken", taken)))
        left, out = max(places - taken, 0), sum(one.status is SubmissionStatus.SCREENED_OUT for one in submissions)
        used_up = status == "PAUSED" and 0 < slots <= out
        note = "" if used_up else NOTES.get(status, "")
        if status == "COMPLETED" and left:
            note = (
                f"The study was stopped on Prolific with {counted(left, 'place')} left; raise its places there to go "
                "on, or run `rootnote server close`."
            )
        return PostingStatus(
            free=left if status in (*RUNNING, "UNPUBLISHED") else 0,
            held=sum(one.status is SubmissionStatus.HELD for one in submissions),
            submissions=submissions,
            orderable=status in ("ACTIVE", "AWAITING REVIEW") or (status == "COMPLETED" and not left),
            refills=True,
            draft=status == "UNPUBLISHED",
            screen_outs=slots,
            used_up=used_up,
            secure=bool(study.get("is_external_study_url_secure")),
            note=note,
        )

    def close(self, id_: str) -> None:
        """Offer no more places; where all places are taken there is nothing to stop."""
        status = self._status(id_)
        if status == "PUBLISHING":
            raise MarketplaceError(f"the study {id_} is being published on Prolific; the next `sync` stops it.")
        action = {"ACTIVE": "STOP", "PAUSED": "STOP", "SCHEDULED": "CANCEL_PUBLISH"}.get(status)
        if action is None:
            return
        try:
            self._api.post(f"/studies/{id_}/transition/", {"action": action}, retry=True)
        except ProlificApiError:
            if self._status(id_) in ("ACTIVE", "PAUSED", "SCHEDULED"):
                raise

    def allow_screen_outs(self, id_: str, number: int) -> None:
        """Raise the number of screen-outs, and let a study go on that paused for it."""
        study = self._study(id_)
        if slots_of(study) < number:
            self._api.patch(f"/studies/{id_}/", {"completion_codes": with_slots(study, number)})
        if study["status"] != "PAUSED":
            return
        try:
            self._api.post(f"/studies/{id_}/transition/", {"action": "START"}, retry=True)
        except ProlificApiError:
            if self._status(id_) == "PAUSED":
                raise

    def _taken_places(self, id_: str) -> list[str]:
        """The statuses of the submissions that fill a place."""
        found = (str(one["status"]) for one in self._api.pages("/submissions/", study=id_))
        return [status for status in found if status not in ("RETURNED", "TIMED-OUT")]

    def _status(self, id_: str) -> str:
        return str(self._study(id_)["status"])

    def _study(self, id_: str) -> dict[str, Any]:
        try:
            study = self._api.get(f"/studies/{id_}/")
        except ProlificApiError as refused:
            if refused.status != 404:
                raise
            raise ProlificApiError(
                f"Prolific has no study {id_}: the token in PROLIFIC_TOKEN is of another workspace, or the study was "
                "deleted there.",
                refused.status,
            ) from refused
        if not {"id", "status", "total_available_places"} <= study.keys():
            raise MarketplaceError(f"Prolific's answer about the study {id_} is incomplete; try again.")
        return study


def _name(order: PostingOrder) -> str:
    return f"rootnote {order.launch}" + (f" {order.token}" if order.only_for else "")


def _is_earlier_launch(one: Mapping[str, Any], order: PostingOrder) -> bool:
    """Whether a study on Prolific is of the same schedule, launched by another database."""
    prefix, launch, *_ = [*str(one.get("internal_name") or "").split(" "), ""]
    same = launch.rpartition("-")[0] == order.launch.rpartition("-")[0]
    return prefix == "rootnote" and same and launch != order.launch and one.get("status") != "UNPUBLISHED"


def _added_by_screen_outs(order: PostingOrder, places: int, screened_out: int) -> int:
    """How many places Prolific has added by itself: one for each it screened out."""
    return min(max(places - (order.total - order.places), 0), screened_out)
