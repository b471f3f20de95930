"""Roles at the desk, and in one table the least that each page and each form of it needs.

A monitor sees how a study goes: progress, funnel, times, wage; agreement only when the study is closed, and nobody's
row. A researcher sees and does what running a study takes. An owner also says who may sign in. What the table does not
name is refused to everybody.
"""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What somebody may do at the desk, the least first."""

    MONITOR = "monitor"
    RESEARCHER = "researcher"
    OWNER = "owner"


RANK = {role: rank for rank, role in enumerate(Role)}
SIGNED_OUT = None  # needs no role, nor to be signed in

ACCESS: dict[str, Role | None] = {
    "account.sign_in": SIGNED_OUT,
    "account.send_sign_in": SIGNED_OUT,
    "account.send_code": SIGNED_OUT,
    "account.sign_out": Role.MONITOR,
    "account.sign_out_everywhere": Role.MONITOR,
    "account.account": Role.MONITOR,
    "account.begin_factor": Role.MONITOR,
    "account.confirm_factor": Role.MONITOR,
    "account.drop_factor": Role.MONITOR,
    "account.new_recovery_codes": Role.MONITOR,
    "researcher.overview": Role.MONITOR,
    "researcher.triplets": Role.MONITOR,
    "researcher.agreement": Role.MONITOR,
    "researcher.listeners": Role.RESEARCHER,
    "researcher.listener": Role.RESEARCHER,
    "researcher.questions": Role.RESEARCHER,
    "researcher.unblind": Role.RESEARCHER,
    "researcher.log": Role.RESEARCHER,
    "researcher.study": Role.RESEARCHER,
    "researcher.stop": Role.RESEARCHER,
    "researcher.resume": Role.RESEARCHER,
    "researcher.message": Role.RESEARCHER,
    "researcher.close": Role.RESEARCHER,
    "people.people": Role.OWNER,
    "people.person": Role.OWNER,
    "people.change_role": Role.OWNER,
    "people.reset_factor": Role.OWNER,
    "people.remove": Role.OWNER,
}

# What opens to somebody who has yet to set up the second factor that this server requires.
UNENROLLED = frozenset(
    {
        "account.account",
        "account.begin_factor",
        "account.confirm_factor",
        "account.sign_out",
        "account.sign_out_everywhere",
    }
)


def is_open(endpoint: str | None) -> bool:
    """Whether a page is there for who is not signed in."""
    return endpoint in ACCESS and ACCESS[endpoint] is SIGNED_OUT


def is_allowed(role: str, endpoint: str | None, *, enrolled: bool = True) -> bool:
    """Whether somebody of a role may open a page; `enrolled`: no second factor is wanting of them."""
    if not enrolled and endpoint not in UNENROLLED:
        return False
    least = ACCESS.get(endpoint or "")
    return least is not None and role in RANK and RANK[Role(role)] >= RANK[least]
