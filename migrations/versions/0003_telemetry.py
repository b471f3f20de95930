"""telemetry"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "seconds_x": sa.Double(),
    "seconds_a": sa.Double(),
    "seconds_b": sa.Double(),
    "play_order": sa.String(length=256),
    "focus_losses": sa.Integer(),
    "sample_rate": sa.Integer(),
    "output_latency_ms": sa.Double(),
    "agent_class": sa.String(length=32),
    "confidence": sa.Integer(),
}


def upgrade() -> None:
    with op.batch_alter_table("responses") as batch_op:
        for name, kind in COLUMNS.items():
            batch_op.add_column(sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("responses") as batch_op:
        for name in COLUMNS:
            batch_op.drop_column(name)
