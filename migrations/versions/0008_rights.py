"""rights: a chained log, consent texts, erasure, retention"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CHAIN = (("number", sa.Integer()), ("hash", sa.String(64)), ("seal", sa.String(64)), ("key", sa.String(16)))


def upgrade() -> None:
    op.create_table(
        "consent_texts",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("language", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_consent_texts")),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_head")),
    )
    op.execute("INSERT INTO log_head (id, number, hash, seal, key) VALUES (1, 0, '', '', '')")
    op.add_column("assignments", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("control", sa.Column("purged", sa.Integer(), server_default="0", nullable=False))
    op.add_column("control", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    # Columns are added one by one: rebuilding the table, as SQLite's batches do, would drop its triggers.
    for name, kind in CHAIN:
        op.add_column("log", sa.Column(name, kind, nullable=True))
    op.create_index("uq_log_number", "log", ["number"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_log_number", "log")
    for name, _ in reversed(CHAIN):
        op.drop_column("log", name)
    op.drop_column("control", "purged_at")
    op.drop_column("control", "purged")
    op.drop_column("assignments", "erased_at")
    op.drop_table("log_head")
    op.drop_table("consent_texts")
