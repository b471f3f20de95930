"""prescreen steps"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ITEM = "uq_prescreen_items_assignment_id_attempt_item"
STEP_ITEM = "uq_prescreen_items_assignment_id_kind_attempt_item"


def upgrade() -> None:
    with op.batch_alter_table("prescreen_items") as batch_op:
        batch_op.drop_constraint(ITEM, type_="unique")
        batch_op.create_unique_constraint(STEP_ITEM, ["assignment_id", "kind", "attempt", "item"])
    results = op.create_table(
        "prescreen_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("correct", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["assignments.id"], name=op.f("fk_prescreen_results_assignment_id_assignments")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prescreen_results")),
        sa.UniqueConstraint(
            "assignment_id", "kind", "attempt", name=op.f("uq_prescreen_results_assignment_id_kind_attempt")
        ),
    )
    _grade(op.get_bind(), results)


def _grade(connection: sa.Connection, results: sa.Table) -> None:
    """Until now there were tones only, and all of an attempt had to be right."""
    items = sa.table(
        "prescreen_items",
        *map(sa.column, ("assignment_id", "kind", "attempt", "answer")),
        sa.column("answered_at", sa.DateTime(timezone=True)),
        sa.column("params", sa.JSON()),
    )
    found: dict[tuple[int, int], list[Any]] = {}
    for item in connection.execute(sa.select(items).where(items.c.kind == "tones")):
        found.setdefault((item.assignment_id, item.attempt), []).append(item)
    for (assignment, attempt), asked in found.items():
        if any(item.answer is None for item in asked):
            continue
        correct = sum(item.answer == item.params["count"] for item in asked)
        row = {
            "assignment_id": assignment,
            "kind": "tones",
            "attempt": attempt,
            "correct": correct,
            "asked": len(asked),
        }
        ended = max(item.answered_at for item in asked)
        connection.execute(results.insert().values(**row, passed=correct == len(asked), ended_at=ended))


def downgrade() -> None:
    op.drop_table("prescreen_results")
    op.execute("DELETE FROM prescreen_items WHERE kind <> 'tones'")  # the tables of before have no room for them
    with op.batch_alter_table("prescreen_items") as batch_op:
        batch_op.drop_constraint(STEP_ITEM, type_="unique")
        batch_op.create_unique_constraint(ITEM, ["assignment_id", "attempt", "item"])
