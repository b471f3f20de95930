"""answers carry a seal, which reveals edits; the end of the log is never deleted"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = ("responses", "answers")
KEEP_HEAD = {
    "sqlite": [
        "CREATE TRIGGER log_head_no_delete BEFORE DELETE ON log_head "
        "BEGIN SELECT RAISE(ABORT, 'the end of the log is never deleted'); END"
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION refuse_log_head_deletion() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the end of the log is never deleted'; END $$",
        "CREATE TRIGGER log_head_no_delete BEFORE DELETE OR TRUNCATE ON log_head "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_log_head_deletion()",
    ],
}


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("seal", sa.String(96), nullable=True))
    for statement in KEEP_HEAD[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    on = "" if op.get_bind().dialect.name == "sqlite" else " ON log_head"
    op.execute(f"DROP TRIGGER log_head_no_delete{on}")
    if on:
        op.execute("DROP FUNCTION refuse_log_head_deletion()")
    for table in TABLES:
        with op.batch_alter_table(table) as batch_op:
            batch_op.drop_column("seal")
