CREATE TABLE idempotency (
    key          TEXT PRIMARY KEY NOT NULL,
    hash         TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('in_progress', 'completed', 'failed')),
    answer       BYTEA,
    created_at   BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX idempotency_expires ON idempotency (expires_at);

-- `writer` is the transaction that wrote an event. Events are read in the order of (writer, seq), and only those whose
-- writers can no longer be overtaken by one that is still open: so nothing appears behind a reader's back.
CREATE TABLE events (
    seq          BIGSERIAL PRIMARY KEY,
    writer       BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    id           UUID NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    version      BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    payload      TEXT NOT NULL,
    metadata     TEXT NOT NULL
);
CREATE INDEX events_order ON events (writer, seq);
CREATE INDEX events_at ON events (at);
