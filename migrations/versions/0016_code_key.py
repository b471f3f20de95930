"""completion codes of a launch follow from a secret number of its own"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A launch that is running keeps the codes that its marketplace knows.
    op.add_column("launch", sa.Column("code_key", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("launch", "code_key")
