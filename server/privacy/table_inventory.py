"""Every table and column of the database, described for review boards.

A test compares this with server.db.models, so a column without a description fails the suite. The types are in
server.privacy.data_inventory.
"""

from __future__ import annotations

from server.db.enums import PaymentKind
from server.privacy.data_inventory import Column, Identifiability, Table
from study.columns import RESPONSE_COLUMNS

PERSONAL, HASHED, NOT_PERSONAL = Identifiability.PERSONAL, Identifiability.HASHED, Identifiability.NOT_PERSONAL
DESK = "researchers at the desk; the server's administrators"
ADMINISTRATORS = "the server's administrators"
ROW_ID = Column("row number", NOT_PERSONAL)
ASSIGNMENT_ID = Column("which run it belongs to")


def _payment_kinds() -> str:
    """The kinds of payment, from their one definition."""
    return ", ".join(kind.replace("_", " ") for kind in PaymentKind)


TABLES: dict[str, Table] = {
    "study": Table(
        "the one study that the database belongs to",
        "the study",
        "study",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "name": Column("the study's name", NOT_PERSONAL),
            "schedule": Column("fingerprint of the schedule", NOT_PERSONAL),
            "created_at": Column("when the database was created", NOT_PERSONAL),
            "rehearsal": Column("whether it is the database of a rehearsal", NOT_PERSONAL),
        },
    ),
    "listeners": Table(
        "everyone who consented, under a random pseudonym",
        "listeners",
        "answers",
        DESK,
        {
            "id": ROW_ID,
            "pseudonym": Column("random pseudonym"),
            "worker_hash": Column(
                "keyed hash of the marketplace's worker id or of the link: prevents taking part twice", HASHED
            ),
        },
    ),
    "assignments": Table(
        "one run of the study by one listener",
        "listeners",
        "answers",
        DESK + "; the desk does not show the completion code",
        {
            "id": ROW_ID,
            "pseudonym": Column("random pseudonym of the run"),
            "listener_id": Column("which listener it belongs to"),
            "entry_hash": Column("hash of a random number that recognises a double click", HASHED),
            "token_hash": Column("hash of the secret token in the address of the listener's page", HASHED),
            "state": Column("how far the run has got, or how it ended"),
            "list_number": Column("which list of trials was assigned"),
            "completion_code": Column("the random code shown to the listener at the end"),
            "consent_version": Column("hash of the consent text that the listener agreed to"),
            "language": Column("language of the pages"),
            "verification": Column("whether the marketplace has listed the listener, or a personal link was used"),
            "consented_at": Column("when the listener consented"),
            "screened_at": Column("when the listener passed the listening check"),
            "listening_at": Column("when the first trial started"),
            "ended_at": Column("when the run ended"),
            "erased_at": Column("when the listener's answers were erased at their request"),
        },
    ),
    "places": Table(
        "the places of the study, one for each list of trials",
        "listeners",
        "answers",
        DESK,
        {
            "id": ROW_ID,
            "list_number": Column("which list of trials", NOT_PERSONAL),
            "turn": Column("the order in which lists are assigned", NOT_PERSONAL),
            "assignment_id": Column("who holds the place"),
            "expires_at": Column("when the reservation expires"),
            "filled": Column("whether its listener completed the study"),
        },
    ),
    "prescreen_items": Table(
        "the sounds of the listening check, with the answers",
        "listeners",
        "answers",
        DESK,
        {
            "id": ROW_ID,
            "assignment_id": ASSIGNMENT_ID,
            "attempt": Column("first or later attempt"),
            "item": Column("which sound within the attempt"),
            "kind": Column("which listening check"),
            "params": Column("the parameters of the sound, and the correct answer"),
            "sound": Column("random name in the sound's address"),
            "answer": Column("the listener's answer"),
            "answered_at": Column("when"),
        },
    ),
    "prescreen_results": Table(
        "the result of each attempt at a listening check",
        "listeners",
        "answers",
        DESK,
        {
            "id": ROW_ID,
            "assignment_id": ASSIGNMENT_ID,
            "kind": Column("which listening check"),
            "attempt": Column("first or later attempt"),
            "correct": Column("number of correct answers"),
            "asked": Column("number of questions"),
            "passed": Column("whether the attempt was passed"),
            "ended_at": Column("when"),
        },
    ),
    "servings": Table(
        "which clips were delivered, under random names",
        "listeners",
        "answers",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "assignment_id": ASSIGNMENT_ID,
            "position": Column("which trial"),
            "slot": Column("X, A or B"),
            "sound": Column("random name in the clip's address"),
            "fetched_at": Column("when it had been delivered completely"),
            "sent": Column("which parts were delivered before that"),
        },
    ),
    "responses": Table(
        "the answers to the trials, with timing and playback data",
        "listeners",
        "answers",
        DESK + "; the desk shows no choices until the study is closed",
        {
            "id": ROW_ID,
            "assignment_id": ASSIGNMENT_ID,
            "position": Column("which trial"),
            "late": Column("whether the reservation had expired"),
            "answered_at": Column("when"),
            "seal": Column("keyed hash that reveals edits", NOT_PERSONAL),
            **{
                name: Column(column.meaning[0].lower() + column.meaning[1:])
                for name, column in RESPONSE_COLUMNS.items()
                if column.source == "response"
            },
        },
    ),
    "answers": Table(
        "the answers to the questions after the trials",
        "listeners",
        "answers",
        DESK,
        {
            "id": ROW_ID,
            "assignment_id": ASSIGNMENT_ID,
            "question": Column("which question"),
            "value": Column("the answer; free text may contain anything the listener chooses to write", PERSONAL),
            "answered_at": Column("when"),
            "seal": Column("keyed hash that reveals edits", NOT_PERSONAL),
        },
    ),
    "control": Table(
        "whether the study is recruiting, and the message shown above the consent text",
        "the study",
        "study",
        DESK,
        {
            "id": ROW_ID,
            "recruiting": Column("whether new listeners are accepted", NOT_PERSONAL),
            "message": Column("the message", NOT_PERSONAL),
            "closed_at": Column("when the study was closed", NOT_PERSONAL),
            "purged": Column("for how many people the identity was deleted", NOT_PERSONAL),
            "purged_at": Column("when identities were last deleted", NOT_PERSONAL),
        },
    ),
    "consent_texts": Table(
        "every consent text that has been shown",
        "the study",
        "study",
        "everyone, at /consent",
        {
            "hash": Column("its version, the SHA-256 of the text", NOT_PERSONAL),
            "language": Column("its language", NOT_PERSONAL),
            "number": Column("version number within that language", NOT_PERSONAL),
            "text": Column("the text", NOT_PERSONAL),
            "since": Column("when it was first shown", NOT_PERSONAL),
        },
    ),
    "arrivals": Table(
        "how often the first page was shown per day, not to whom",
        "the study",
        "study",
        DESK,
        {
            "day": Column("the day", NOT_PERSONAL),
            "shown": Column(
                "what was shown: the study information, that no place is free, or that the link is damaged",
                NOT_PERSONAL,
            ),
            "shard": Column("one of several counters that are added up", NOT_PERSONAL),
            "number": Column("how often", NOT_PERSONAL),
        },
    ),
    "researchers": Table(
        "accounts of researchers who may sign in at the desk",
        "researchers",
        "desk",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "name": Column("the sign-in name", PERSONAL),
            "password_hash": Column("argon2id hash of the password", HASHED),
            "created_at": Column("when the account was created"),
            "unblinded_at": Column("when the researcher asked to see agreement early"),
            "role": Column("owner, researcher or monitor"),
            "factor": Column("the secret of the second factor, encrypted"),
            "factor_step": Column("the step of the last code used"),
            "recovery": Column("keyed hashes of the unused recovery codes", HASHED),
        },
    ),
    "sign_ins": Table(
        "browsers in which a researcher is signed in; the row is deleted when the sign-in ends",
        "researchers",
        "desk",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "researcher_id": Column("which researcher"),
            "token_hash": Column("hash of the cookie's token", HASHED),
            "created_at": Column("when it started"),
            "seen_at": Column("last used"),
        },
    ),
    "attempts": Table(
        "failed attempts to sign in at the desk, counted for 15 minutes",
        "researchers",
        "desk",
        ADMINISTRATORS,
        {
            "key": Column("keyed hash of the sign-in name, the network address, both, or a known browser", HASHED),
            "since": Column("when it started"),
            "number": Column("how many"),
        },
    ),
    "log": Table(
        "the audit log: what researchers, commands and the server did, when and why; append-only",
        "researchers",
        "study",
        DESK,
        {
            "id": ROW_ID,
            "at": Column("when"),
            "who": Column("who did it, by sign-in name", PERSONAL),
            "what": Column("the action"),
            "detail": Column("details of the action", PERSONAL),
            "reason": Column("the reason, in their own words", PERSONAL),
            "number": Column("number of the entry in the hash chain", NOT_PERSONAL),
            "hash": Column("hash of this entry and the previous one", NOT_PERSONAL),
            "seal": Column("keyed hash that reveals edits", NOT_PERSONAL),
            "key": Column("identifies the secret that sealed it (a hash)", NOT_PERSONAL),
        },
    ),
    "log_head": Table(
        "the sealed end of the audit log",
        "the study",
        "study",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "number": Column("the number of the last entry", NOT_PERSONAL),
            "hash": Column("hash of the last entry", NOT_PERSONAL),
            "seal": Column("keyed hash that reveals a truncated log", NOT_PERSONAL),
            "key": Column("identifies the secret that sealed it (a hash)", NOT_PERSONAL),
        },
    ),
    "launch": Table(
        "the study's launch at a marketplace",
        "the study",
        "payments",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "name": Column("name of the launch", NOT_PERSONAL),
            "live": Column("whether real money is paid", NOT_PERSONAL),
            "terms": Column("the pay and recruiting settings of study.toml", NOT_PERSONAL),
            "budget_cents": Column("the maximum cost", NOT_PERSONAL),
            "began_at": Column("when it started", NOT_PERSONAL),
            "closed_at": Column("when it was closed", NOT_PERSONAL),
            "code_key": Column("a random number that the launch's completion codes follow from", NOT_PERSONAL),
        },
    ),
    "openings": Table(
        "postings: places ordered at the marketplace",
        "listeners",
        "payments",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "token": Column("random token of the order", NOT_PERSONAL),
            "places": Column("how many", NOT_PERSONAL),
            "reward_cents": Column("reward per place", NOT_PERSONAL),
            "fee_cents": Column("the marketplace's fee per place", NOT_PERSONAL),
            "fee_millionths": Column("the rest of that fee, in millionths of a cent", NOT_PERSONAL),
            "screen_outs": Column("how many workers the marketplace may screen out and pay by itself", NOT_PERSONAL),
            "screen_out_cost": Column("what one of them costs, in millionths of a cent", NOT_PERSONAL),
            "secure": Column("whether workers arrive with a signed address", NOT_PERSONAL),
            "owed_to": Column("whose payment the posting is for, if it was made for one person"),
            "market_id": Column("the marketplace's id of the task", NOT_PERSONAL),
            "ordered_at": Column("when", NOT_PERSONAL),
            "closed_at": Column("when no place was left", NOT_PERSONAL),
            "settled_at": Column("when nothing more could change there", NOT_PERSONAL),
        },
    ),
    "submissions": Table(
        "submissions: who took which place at the marketplace, as keyed hashes",
        "listeners",
        "payments",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "key": Column("keyed hash of worker and submission", HASHED),
            "assignment_id": ASSIGNMENT_ID,
            "opening": Column("the marketplace's id of the task", NOT_PERSONAL),
            "status": Column("held, submitted, approved, returned …"),
            "seen_at": Column("when this status was last fetched"),
            "excluded": Column("whether the worker was excluded from further postings at the marketplace"),
            "listed": Column("whether the marketplace itself has listed this worker with this submission"),
        },
    ),
    "payments": Table(
        "every payment, recorded before it is sent",
        "listeners",
        "payments",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "token": Column("random token of the payment", NOT_PERSONAL),
            "assignment_id": ASSIGNMENT_ID,
            "submission_id": Column("the submission it pays"),
            "opening_id": Column("the posting whose reward it is", NOT_PERSONAL),
            "kind": Column(f"one of: {_payment_kinds()}"),
            "cents": Column("amount"),
            "fee_cents": Column("the marketplace's fee", NOT_PERSONAL),
            "fee_millionths": Column("the rest of that fee, in millionths of a cent", NOT_PERSONAL),
            "state": Column("pending, paid or void"),
            "reason": Column("the message that the listener sees with a bonus"),
            "intended_at": Column("when it was recorded"),
            "paid_at": Column("when it was sent"),
        },
    ),
    "callbacks": Table(
        "the calls that tell a panel's server that a participant finished",
        "listeners",
        "payments",
        ADMINISTRATORS,
        {
            "id": ROW_ID,
            "assignment_id": ASSIGNMENT_ID,
            "state": Column("sending, done, waiting, unclear or refused"),
            "attempts": Column("how often it was tried"),
            "answer": Column("the status of the answer; never its content"),
            "called_at": Column("when it was made last"),
            "next_at": Column("when it is tried again"),
        },
    ),
    "webhook_events": Table(
        "the events that the marketplace sent, so that each has an effect once",
        "the study",
        "study",
        ADMINISTRATORS,
        {
            "id": Column("hash of the event's random id; who and what it was about is not stored", NOT_PERSONAL),
            "kind": Column("the type of event", NOT_PERSONAL),
            "received_at": Column("when it was received", NOT_PERSONAL),
            "handled_at": Column("when the next synchronisation began", NOT_PERSONAL),
        },
    ),
    "vault": Table(
        "who a listener is at the marketplace; the only table with worker ids",
        "listeners",
        "identity",
        "nobody without the vault's key, which is not in the database; opened by commands that pay, and to return "
        "a listener to the marketplace",
        {
            "pseudonym": Column("the listener's random pseudonym"),
            "sealed": Column("the worker's id and submission, encrypted", PERSONAL),
            "changed_at": Column("when it last changed"),
        },
    ),
}
