"""server time: how long a trial was open, doubts about its times, bytes sent of a clip, databases of rehearsals"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS: tuple[tuple[str, str, sa.types.TypeEngine[Any]], ...] = (
    ("responses", "elapsed_s", sa.Double()),
    ("responses", "doubts", sa.String(length=64)),
    ("servings", "sent", sa.Text()),
    ("study", "rehearsal", sa.Boolean()),
)


def upgrade() -> None:
    for table, name, kind in COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for table, name, _ in reversed(COLUMNS):
        op.drop_column(table, name)
