"""exact fees: fractions of a cent, screen-outs that the marketplace pays by itself, signed arrivals"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

POSTINGS = (("fee_millionths", sa.BigInteger()), ("screen_outs", sa.Integer()), ("screen_out_cost", sa.BigInteger()))


def upgrade() -> None:
    for name, kind in POSTINGS:
        op.add_column("openings", sa.Column(name, kind, server_default="0", nullable=False))
    op.add_column("openings", sa.Column("secure", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("payments", sa.Column("fee_millionths", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("payments", "fee_millionths")
    op.drop_column("openings", "secure")
    for name, _ in reversed(POSTINGS):
        op.drop_column("openings", name)
