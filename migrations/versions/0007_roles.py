"""roles and second factors"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = ("recovery", "factor_step", "factor", "role")


def upgrade() -> None:
    # Whoever is there already could do everything: as owners they still can, and nobody is locked out.
    op.add_column("researchers", sa.Column("role", sa.String(length=16), server_default="owner", nullable=False))
    op.add_column("researchers", sa.Column("factor", sa.Text(), nullable=True))
    op.add_column("researchers", sa.Column("factor_step", sa.Integer(), nullable=True))
    op.add_column("researchers", sa.Column("recovery", sa.Text(), nullable=True))


def downgrade() -> None:
    # Before, everybody saw everything: what a monitor must not see, nobody who was one may be shown.
    op.execute("DELETE FROM researchers WHERE role = 'monitor'")
    # In place: a copy of the table in its stead would take the sign-ins with it on SQLite.
    for column in COLUMNS:
        op.drop_column("researchers", column)
