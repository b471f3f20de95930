"""verification: whether the marketplace has listed a run's worker and submission"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Only the marketplace reports these; a place that was returned or timed out may never have existed there.
LISTED = "('submitted', 'approved', 'rejected', 'screened_out')"


def upgrade() -> None:
    op.add_column(
        "assignments", sa.Column("verification", sa.String(length=16), server_default="unverified", nullable=False)
    )
    op.add_column("submissions", sa.Column("listed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(f"UPDATE submissions SET listed = true WHERE status IN {LISTED}")  # noqa: S608
    op.execute(
        "UPDATE assignments SET verification = 'confirmed' WHERE id IN (SELECT assignment_id FROM submissions "
        "WHERE listed AND assignment_id IS NOT NULL)"
    )


def downgrade() -> None:
    op.drop_column("submissions", "listed")
    op.drop_column("assignments", "verification")
