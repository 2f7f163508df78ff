"""What is here and may be another disk's, and the sessions that are over."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("streams", sa.Column("doubts", sa.Text(), nullable=True))
    op.add_column("devices", sa.Column("past_sessions", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("streams", "doubts")
    op.drop_column("devices", "past_sessions")
