"""The columns of the study's tables: one entry for each, from which files, checks and descriptions follow.

The build takes the types of triplets.parquet and schedule.parquet from here, the export its columns, the public release
what it publishes and how it describes them, the board packet its descriptions, and the analysis what it reads and how
it checks the values.

To add a column of `responses`, add an entry to RESPONSE_COLUMNS. It must say how the column is published. The value
comes from `source`: a field of PlannedTrial, a field of the server's model Response, or a function of the response
such as those in `server.export.computed`. An installed package adds its own columns, which come last, through an
entry point of the group "rootnote.response_columns".

Conventions: dictionaries are in the order of the files. Nothing here imports a heavy library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from study.design.bin_pairs import BINS
from study.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

ArrowType = Literal["string", "int64", "int8", "double"]

# ------------------------------------------------------------------ what the analysis accepts


@dataclass(frozen=True)
class AnyText:
    """An identifier or another text."""


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    allowed: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Number:
    """A number; `least` and `most` are those of Rootnote's own export, and data from elsewhere may exceed them."""

    least: float | None = None
    most: float | None = None


Check = AnyText | OneOf | Number
TEXT, YES_OR_NO, SIDE = AnyText(), OneOf((0, 1)), OneOf(("A", "B"))
COUNT = Number(least=0)
VERIFICATIONS = ("confirmed", "unconfirmed", "unverified")

# ------------------------------------------------------------------ how a column is published


@dataclass(frozen=True)
class AsIs:
    """Published unchanged."""


@dataclass(frozen=True)
class Renamed:
    """Published under a random name, which is the same wherever this thing occurs in one release."""

    what: Literal["listener", "assignment", "trial", "clip"]


@dataclass(frozen=True)
class Capped:
    """Published up to `most`; a larger number is published as `most`."""

    most: int


@dataclass(frozen=True)
class CoarseTime:
    """Published in steps of `step_ms` up to `longest_ms`, on the same side of the rule `too_fast` as before.

    `per_unit`: how many milliseconds the column's unit has.
    """

    step_ms: int
    longest_ms: int
    per_unit: int = 1


@dataclass(frozen=True)
class RunOutcome:
    """A run's state, published without whether it was paid."""


@dataclass(frozen=True)
class Generalised:
    """Published per listener, in values that at least k listeners share."""


@dataclass(frozen=True)
class Withheld:
    """Not published; `why` completes "not published: "."""

    why: str


ResponsePublish = AsIs | Renamed | Capped | CoarseTime | Withheld
ListenerPublish = AsIs | Renamed | RunOutcome | Generalised | Withheld
AS_IS = AsIs()
_TIME = Withheld("times could identify a listener")
_TELEMETRY = Withheld("telemetry")
_PER_LISTENER = Withheld("published per listener, in listeners.csv")
_PLAYS = Capped(5)

# ------------------------------------------------------------------ the columns


@dataclass(frozen=True)
class TableColumn:
    """A column: its Arrow type and its meaning, which begins with a capital and ends without a full stop."""

    type: ArrowType
    meaning: str


@dataclass(frozen=True, kw_only=True)
class ResponseColumn(TableColumn):
    """A column of `responses`.

    Attributes:
        source: where the export finds the value: "trial" (the planned trial), "response" (the stored response), or
            the "module:function" that computes it from a `server.export.computed.ResponseContext`.
        analysis: whether the analysis needs the column, uses it if present, or ignores it.
        check: the values that the analysis accepts; a blank is accepted where the column is not needed.
    """

    source: str
    analysis: Literal["needed", "used", "ignored"]
    publish: ResponsePublish
    check: Check = TEXT
    unit: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.publish, ResponsePublish):
            raise TypeError(f"nothing says how the column is published: publish is {self.publish!r}")


@dataclass(frozen=True, kw_only=True)
class ListenerColumn(TableColumn):
    """A column of listeners.csv."""

    publish: ListenerPublish
    values: str = ""


# Columns of triplets.parquet and schedule.parquet that no response has.
DESIGN_COLUMNS: dict[str, TableColumn] = {
    "triplet": TableColumn("int64", "Number of the triplet, from 0; -1 in a catch trial"),
    "list": TableColumn("int64", "Number of the trial list, from 0"),
    "rank_high": TableColumn("int64", "Rank of clip_high among the neighbours of the prompt, from 1; -1 outside them"),
    "rank_low": TableColumn("int64", "Rank of clip_low among the neighbours of the prompt, from 1; -1 outside them"),
    "track_prompt": TableColumn("int64", "Track of the prompt"),
    "track_high": TableColumn("int64", "Track of clip_high"),
    "track_low": TableColumn("int64", "Track of clip_low"),
}


def _trial(
    type_: ArrowType,
    meaning: str,
    publish: ResponsePublish,
    analysis: Literal["needed", "used"] = "used",
    check: Check = TEXT,
    unit: str = "",
) -> ResponseColumn:
    return ResponseColumn(type_, meaning, source="trial", analysis=analysis, publish=publish, check=check, unit=unit)


def _telemetry(type_: ArrowType, meaning: str, publish: ResponsePublish, unit: str = "") -> ResponseColumn:
    return ResponseColumn(type_, meaning, source="response", analysis="ignored", publish=publish, unit=unit)


_COMPUTED = "server.export.computed"
RESPONSE_COLUMNS: Registry[ResponseColumn] = Registry(
    "rootnote.response_columns",
    {
        "study": ResponseColumn(
            "string", "Name of the study", source=f"{_COMPUTED}:study_name", analysis="used", publish=AS_IS
        ),
        "embedder": _trial("string", "Similarity measure that chose the clips", AS_IS, "needed"),
        "assignment": ResponseColumn(
            "string",
            "One run by one listener",
            source=f"{_COMPUTED}:assignment",
            analysis="used",
            publish=Renamed("assignment"),
        ),
        "listener": ResponseColumn(
            "string",
            "Listener, by a random pseudonym",
            source=f"{_COMPUTED}:listener",
            analysis="needed",
            publish=Renamed("listener"),
        ),
        "trial": ResponseColumn(
            "string",
            "Trial, as list-position",
            source=f"{_COMPUTED}:trial_name",
            analysis="used",
            publish=Renamed("trial"),
        ),
        "position": ResponseColumn(
            "int64", "Position of the trial in the run, from 1", source="response", analysis="used", publish=AS_IS
        ),
        "kind": _trial(
            "string",
            "Kind of trial: only scored trials enter the tables; in a catch trial one of the clips is X itself",
            AS_IS,
            check=OneOf(("scored", "catch", "repeat")),
        ),
        "prompt": _trial("int64", "Clip X", Renamed("clip"), "needed"),
        "bin_high": _trial(
            "int64", "Bin of the more similar clip: 1 is the most similar, 4 random", AS_IS, "needed", OneOf(BINS)
        ),
        "bin_low": _trial("int64", "Bin of the less similar clip", AS_IS, "needed", OneOf(BINS)),
        "clip_high": _trial("int64", "Clip of bin_high", Renamed("clip")),
        "clip_low": _trial("int64", "Clip of bin_low", Renamed("clip")),
        "similarity_high": _trial(
            "double", "Similarity of clip_high to the prompt", AS_IS, check=Number(-1, 1), unit="cosine"
        ),
        "similarity_low": _trial(
            "double", "Similarity of clip_low to the prompt", AS_IS, check=Number(-1, 1), unit="cosine"
        ),
        "high_side": _trial("string", "Side on which clip_high was played", AS_IS, check=SIDE),
        "choice": ResponseColumn(
            "string",
            "Side that the listener chose as more like X",
            source="response",
            analysis="used",
            publish=AS_IS,
            check=SIDE,
        ),
        "agreed": ResponseColumn(
            "int8",
            "Whether the listener chose clip_high (1) or not (0)",
            source=f"{_COMPUTED}:agreed",
            analysis="needed",
            publish=AS_IS,
            check=YES_OR_NO,
        ),
        "response_ms": ResponseColumn(
            "int64",
            "Time from showing the page to the answer",
            source="response",
            analysis="used",
            publish=CoarseTime(step_ms=100, longest_ms=300_000),
            check=COUNT,
            unit="ms",
        ),
        **{
            f"plays_{clip.lower()}": ResponseColumn(
                "int64",
                f"Number of times that {clip} was heard to its end",
                source="response",
                analysis="used",
                publish=_PLAYS,
                check=COUNT,
            )
            for clip in "XAB"
        },
        "passed_prescreen": ResponseColumn(
            "int8",
            "Whether the listener passed the listening check (1) or not (0)",
            source=f"{_COMPUTED}:passed_prescreen",
            analysis="used",
            publish=AS_IS,
            check=YES_OR_NO,
        ),
        "completed": ResponseColumn(
            "int8",
            "Whether the listener finished the study (1) or not (0)",
            source=f"{_COMPUTED}:completed",
            analysis="used",
            publish=AS_IS,
            check=YES_OR_NO,
        ),
        "answered_at": ResponseColumn(
            "string",
            "Time of the answer, in UTC (ISO 8601)",
            source=f"{_COMPUTED}:answered_at",
            analysis="used",
            publish=_TIME,
        ),
        # The public contract ends here; what follows is telemetry, blank where the browser did not report it.
        **{
            f"seconds_{clip.lower()}": _telemetry("double", f"Seconds of {clip} that were played", _TELEMETRY, "s")
            for clip in "XAB"
        },
        "play_order": ResponseColumn(
            "string",
            "Order in which the clips were started, such as XABX",
            source="response",
            analysis="used",
            publish=_TELEMETRY,
        ),
        "focus_losses": _telemetry("int64", "Number of times that the page was left or hidden", _TELEMETRY),
        "sample_rate": _telemetry("int64", "Sample rate of the sound output", _PER_LISTENER, "Hz"),
        "output_latency_ms": _telemetry(
            "double", "Delay of the sound output, as the browser estimates it", _TELEMETRY, "ms"
        ),
        "agent_class": _telemetry(
            "string", "Family and size of the browser, such as firefox-desktop; not its full description", _PER_LISTENER
        ),
        "confidence": ResponseColumn(
            "int64",
            "How sure the listener was, from 1 to 5 (certain), where the study asks for it",
            source="response",
            analysis="used",
            publish=AS_IS,
            check=Number(1, 5),
        ),
        "verification": ResponseColumn(
            "string",
            "Standing of the run: confirmed, unconfirmed (it does not count), or unverified (it came by an open link)",
            source=f"{_COMPUTED}:verification",
            analysis="used",
            publish=AS_IS,
            check=OneOf(VERIFICATIONS),
        ),
        # By the server's clock; blank in answers from before it was recorded.
        "elapsed_s": ResponseColumn(
            "double",
            "Time from when the trial was due to the answer, by the server's clock",
            source="response",
            analysis="used",
            publish=CoarseTime(step_ms=100, longest_ms=300_000, per_unit=1000),
            check=COUNT,
            unit="s",
        ),
        "doubts": ResponseColumn(
            "string",
            "Times reported by the browser that the server's clock makes doubtful: hearing, response",
            source="response",
            analysis="used",
            publish=AS_IS,
        ),
    },
)

_RUN_TIME = Withheld("times and durations could identify a listener")
LISTENER_COLUMNS: dict[str, ListenerColumn] = {
    "assignment": ListenerColumn("string", "One run, as in responses.csv", publish=Renamed("assignment")),
    "listener": ListenerColumn("string", "Listener, as in responses.csv", publish=Renamed("listener")),
    "list": ListenerColumn("int64", "Number of the trial list", publish=Withheld("the schedule would show the run")),
    "state": ListenerColumn("string", "State of the run", publish=RunOutcome()),
    "prescreen": ListenerColumn(
        "string", "Result of the listening check", publish=AS_IS, values="passed, failed, open"
    ),
    "attempts": ListenerColumn("int64", "Attempts at the listening check", publish=Withheld("detail of the check")),
    "responses": ListenerColumn("int64", "Number of responses", publish=Withheld("responses.csv has the responses")),
    "late_responses": ListenerColumn("int64", "Responses given after the place had expired", publish=_RUN_TIME),
    "duration_seconds": ListenerColumn("double", "Seconds from consent to the end of the run", publish=_RUN_TIME),
    "consent_version": ListenerColumn(
        "string", "SHA-256 of the consent text", publish=Withheld("it shows when the listener took part")
    ),
    "language": ListenerColumn("string", "Language of the pages", publish=Generalised()),
    "consented_at": ListenerColumn("string", "Time of consent, in UTC (ISO 8601)", publish=_RUN_TIME),
}
# For each graded step of the prescreen: <step>_passed and <step>_correct.
STEP_COLUMNS: dict[str, ListenerColumn] = {
    "passed": ListenerColumn("int8", "Whether the step was passed", publish=Withheld("detail of the check")),
    "correct": ListenerColumn("int64", "Number of correct answers", publish=Withheld("detail of the check")),
}


def columns_read(*how: Literal["needed", "used", "ignored"]) -> tuple[str, ...]:
    """The columns of `responses` that the analysis needs, uses or ignores."""
    return tuple(name for name, column in RESPONSE_COLUMNS.items() if column.analysis in how)


def arrow_type(name: str) -> pa.DataType:
    """The type of a column of triplets, schedule or responses."""
    import pyarrow as pa

    return pa.type_for_alias((RESPONSE_COLUMNS.get(name) or DESIGN_COLUMNS[name]).type)


def arrow_schema(names: Iterable[str]) -> pa.Schema:
    """The schema of a table with these columns of triplets, schedule or responses."""
    import pyarrow as pa

    return pa.schema([(name, arrow_type(name)) for name in names])
