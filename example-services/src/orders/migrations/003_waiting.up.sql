-- Set while an order waits for payments, and until when it may.
ALTER TABLE sagas ADD COLUMN queued_until BIGINT;
CREATE INDEX sagas_queued ON sagas (queued_until) WHERE queued_until IS NOT NULL;

-- What customers are told. Written with the change that it is about; a letter that was sent keeps its line, for a time.
CREATE TABLE notices (
    id          UUID PRIMARY KEY NOT NULL,
    order_id    UUID NOT NULL REFERENCES orders (id),
    user_id     TEXT NOT NULL,
    kind        TEXT NOT NULL,
    -- Why, when it was cancelled.
    reason      TEXT NOT NULL,
    -- waiting, sent, dropped
    state       TEXT NOT NULL,
    tries       BIGINT NOT NULL,
    -- Not before; also until when nobody else may send it.
    due_at      BIGINT NOT NULL,
    at          BIGINT NOT NULL
);
CREATE INDEX notices_due ON notices (state, due_at);
