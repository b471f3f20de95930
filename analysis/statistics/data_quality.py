"""Data quality of every run, from its responses: the counts behind the score of study.data_quality.

Conventions: a run is a study, listener and assignment, as far as the file has these; where the file lacks a column, the
component is unknown. All kinds of trials count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.responses.exclusions import runs
from analysis.statistics.reliability import TRIPLET
from study.data_quality import COMPONENTS, ORDER_LIMIT, QualityComponent, QualityCounts, components, score

PLAYS = ("plays_x", "plays_a", "plays_b")
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RunQuality:
    """One run: its score, its components, and the median seconds of an answer (None if the file has no times)."""

    listener: str
    assignment: str
    answers: int
    score: int | None
    components: Sequence[QualityComponent]
    seconds: float | None


def data_quality(everything: pd.DataFrame) -> list[RunQuality]:
    """Every run, the lowest score first."""
    run = runs(everything)
    number = int(run.max(initial=-1)) + 1
    answers, counts = np.bincount(run, minlength=number), _all_counts(everything, run, number)
    chose_a = _count(everything.get("choice", pd.Series("", everything.index)) == "A", run, number)
    taken = _seconds(everything)
    middle = taken.groupby(run).median() if taken is not None else None
    first = np.unique(run, return_index=True)[1]
    found = []
    for index, row in enumerate(first):
        pairs = {name: (int(of[index]), int(right[index])) for name, (of, right) in counts.items()}
        sided = int(answers[index]) if "choice" in everything else 0
        parts = components(QualityCounts(sided, int(chose_a[index]), **pairs))
        found.append(
            RunQuality(
                listener=str(everything["listener"].iloc[row]),
                assignment=str(everything["assignment"].iloc[row]) if "assignment" in everything else "",
                answers=int(answers[index]),
                score=score(parts),
                components=parts,
                seconds=None if middle is None else float(middle.iloc[index]),
            )
        )
    return sorted(found, key=lambda one: (one.score is None, one.score, one.listener, one.assignment))


def to_frame(found: Sequence[RunQuality]) -> pd.DataFrame:
    """One row per run: the score, and every component as a share."""
    return pd.DataFrame(
        {
            "listener": one.listener,
            "assignment": one.assignment,
            "answers": one.answers,
            "score": one.score,
            **{part.name: part.share for part in one.components},
            "median_seconds": one.seconds,
        }
        for one in found
    )


def summary(found: Sequence[RunQuality]) -> list[dict[str, Any]]:
    """Every known component: its mean share over runs, and how many runs are below 1."""
    rows = []
    for place, (title, meaning) in enumerate(COMPONENTS.values()):
        shares = [share for one in found if (share := one.components[place].share) is not None]
        if shares:
            below = sum(share < 1 for share in shares)
            rows.append(
                {
                    "title": title,
                    "meaning": meaning,
                    "mean": float(np.mean(shares)),
                    "below": below,
                    "runs": len(shares),
                }
            )
    return rows


def _all_counts(frame: pd.DataFrame, run: npt.NDArray[np.int64], number: int) -> dict[str, tuple[Any, Any]]:
    """For each component that the columns allow: how many there were in each run, and how many as expected."""
    every = np.ones(len(frame), np.bool_)
    judged: dict[str, tuple[Rows, Rows]] = {}
    if "kind" in frame:
        agreed = np.asarray(frame["agreed"] == 1, np.bool_)
        judged["catch"] = (np.asarray(frame["kind"] == "catch", np.bool_), agreed)
        judged["repeats"] = _repeats(frame, run)
    if "elapsed_s" in frame:
        doubts = frame["doubts"].astype(object) if "doubts" in frame else pd.Series("", frame.index)
        judged["times"] = (np.asarray(frame["elapsed_s"].notna()), np.asarray(doubts.isna() | (doubts == "")))
    if set(PLAYS) <= set(frame):
        judged["plays"] = (every, np.asarray((frame[list(PLAYS)] >= 1).all(axis=1), np.bool_))
    if {"play_order", *PLAYS} <= set(frame):
        judged["telemetry"] = _telemetry(frame)
    return {
        name: (_count(asked, run, number), _count(asked & expected, run, number))
        for name, (asked, expected) in judged.items()
    }


def _repeats(frame: pd.DataFrame, run: npt.NDArray[np.int64]) -> tuple[Rows, Rows]:
    """The repeated trials with an earlier answer of the same run, and those answered as before."""
    keys = [name for name in TRIPLET if name in frame]
    small = frame[keys].astype(str).assign(run=run, agreed=frame["agreed"].to_numpy(), row=np.arange(len(frame)))
    first = small[np.asarray(frame["kind"] == "scored")].drop_duplicates(["run", *keys])
    again = small[np.asarray(frame["kind"] == "repeat")]
    both = again.merge(first, on=["run", *keys], suffixes=("", "_first"))
    asked, same = np.zeros(len(frame), np.bool_), np.zeros(len(frame), np.bool_)
    asked[both["row"]] = True
    same[both["row"]] = both["agreed"] == both["agreed_first"]
    return asked, same


def _telemetry(frame: pd.DataFrame) -> tuple[Rows, Rows]:
    """As study.data_quality.order_agrees, for all rows at once."""
    order = frame["play_order"].astype(object)
    known = np.asarray(order.notna() & (order != ""))
    text = order.where(known, "").astype(str)
    agrees = np.asarray(text.str.len() >= ORDER_LIMIT)
    started = [np.asarray(text.str.count(clip) >= frame[name]) for clip, name in zip("XAB", PLAYS, strict=True)]
    return known, agrees | np.logical_and.reduce(started)


def _count(rows: Any, run: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    return np.bincount(run[np.asarray(rows, np.bool_)], minlength=number)


def _seconds(frame: pd.DataFrame) -> pd.Series[float] | None:
    """The time of each answer, by the server's clock where it is known."""
    by_browser = frame["response_ms"] / 1000 if "response_ms" in frame else None
    if "elapsed_s" not in frame:
        return by_browser
    return frame["elapsed_s"] if by_browser is None else frame["elapsed_s"].fillna(by_browser)
