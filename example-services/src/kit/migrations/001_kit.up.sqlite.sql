CREATE TABLE idempotency (
    key          TEXT PRIMARY KEY NOT NULL,
    hash         TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('in_progress', 'completed', 'failed')),
    answer       BLOB,
    created_at   BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX idempotency_expires ON idempotency (expires_at);

CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    writer       BIGINT NOT NULL DEFAULT 0,
    id           UUID NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    version      BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    payload      TEXT NOT NULL,
    metadata     TEXT NOT NULL
);
CREATE INDEX events_at ON events (at);
