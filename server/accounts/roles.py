"""Roles at the desk, and the minimum role that each page and form needs.

`ACCESS` is the one table of permissions: endpoint -> minimum role. An endpoint that is missing from it is refused to
everyone.
"""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """The rights of a user at the desk, from the fewest to the most."""

    MONITOR = "monitor"
    RESEARCHER = "researcher"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    @property
    def description(self) -> str:
        """What the role may see and do, as a sentence without its subject."""
        return {
            "monitor": "sees progress, times and pay, and agreement once the study is closed; no individual listener",
            "researcher": "sees everything except agreement while the study runs; stops, resumes and closes the study",
            "owner": "does what a researcher does, and manages who may sign in (under “Users”)",
        }[self.value]

    def may_open(self, endpoint: str | None) -> bool:
        """Whether the role may open a page or send a form."""
        least = ACCESS.get(endpoint or "")
        return least is not None and self.rank >= least.rank


PUBLIC = None  # needs no sign-in

ACCESS: dict[str, Role | None] = {
    "account.sign_in": PUBLIC,
    "account.send_sign_in": PUBLIC,
    "account.send_code": PUBLIC,
    "account.sign_out": Role.MONITOR,
    "account.sign_out_everywhere": Role.MONITOR,
    "account.account": Role.MONITOR,
    "account.begin_two_factor": Role.MONITOR,
    "account.confirm_two_factor": Role.MONITOR,
    "account.remove_two_factor": Role.MONITOR,
    "account.new_recovery_codes": Role.MONITOR,
    "desk.overview": Role.MONITOR,
    "desk.triplets": Role.MONITOR,
    "desk.agreement": Role.MONITOR,
    "desk.listeners": Role.RESEARCHER,
    "desk.listener": Role.RESEARCHER,
    "desk.questions": Role.RESEARCHER,
    "desk.data_quality": Role.RESEARCHER,
    "desk.unblind": Role.RESEARCHER,
    "desk.log": Role.RESEARCHER,
    "study.study": Role.RESEARCHER,
    "study.stop": Role.RESEARCHER,
    "study.resume": Role.RESEARCHER,
    "study.message": Role.RESEARCHER,
    "study.close": Role.RESEARCHER,
    "users.users": Role.OWNER,
    "users.user": Role.OWNER,
    "users.change_role": Role.OWNER,
    "users.reset_two_factor": Role.OWNER,
    "users.remove": Role.OWNER,
}

# Endpoints that are open to a user who has not yet set up the second factor that this server requires.
BEFORE_TWO_FACTOR = frozenset(
    {
        "account.account",
        "account.begin_two_factor",
        "account.confirm_two_factor",
        "account.sign_out",
        "account.sign_out_everywhere",
    }
)


def is_public(endpoint: str | None) -> bool:
    """Whether a page or form is open without signing in."""
    return endpoint in ACCESS and ACCESS[endpoint] is PUBLIC


def is_allowed(role: str, endpoint: str | None, *, enrolled: bool = True) -> bool:
    """Whether a user may open a page or send a form.

    Args:
        role: the user's role; an unknown one may do nothing.
        enrolled: whether the user has every second factor that this server requires.
    """
    if not enrolled and endpoint not in BEFORE_TWO_FACTOR:
        return False
    return role in list(Role) and Role(role).may_open(endpoint)
