CREATE TABLE payments (
    id              UUID PRIMARY KEY NOT NULL,
    order_id        UUID NOT NULL UNIQUE,
    user_id         TEXT NOT NULL,
    amount          BIGINT NOT NULL CHECK (amount > 0),
    currency        TEXT NOT NULL,
    method          TEXT NOT NULL,
    token           TEXT NOT NULL,
    status          TEXT NOT NULL,
    key             TEXT NOT NULL UNIQUE,
    external_id     TEXT,
    failure         TEXT,
    refunded        BIGINT NOT NULL DEFAULT 0 CHECK (refunded >= 0 AND refunded <= amount),
    needs_attention BOOLEAN NOT NULL DEFAULT FALSE,
    client_secret   TEXT,
    processed_at    BIGINT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    -- Who is bringing it on, and until when nobody else may.
    lease           UUID,
    lease_until     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX payments_user ON payments (user_id);
CREATE INDEX payments_status ON payments (status, updated_at);

CREATE TABLE refunds (
    id         UUID PRIMARY KEY NOT NULL,
    payment_id UUID NOT NULL REFERENCES payments (id),
    key        TEXT NOT NULL UNIQUE,
    amount     BIGINT NOT NULL CHECK (amount > 0),
    reason     TEXT NOT NULL,
    status     TEXT NOT NULL CHECK (status IN ('pending', 'completed', 'failed')),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX refunds_payment ON refunds (payment_id);

-- One row for each order that was ever heard of, which whoever begins a payment or gives the order up holds meanwhile.
-- Closed: it was given up before a payment for it was known, and none may begin any more.
CREATE TABLE known_orders (
    order_id UUID PRIMARY KEY NOT NULL,
    closed   BOOLEAN NOT NULL,
    at       BIGINT NOT NULL
);

CREATE TABLE payment_methods (
    token      TEXT PRIMARY KEY NOT NULL,
    user_id    TEXT NOT NULL,
    kind       TEXT NOT NULL,
    last_four  TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX payment_methods_user ON payment_methods (user_id);

CREATE TABLE receipts (
    payment_id UUID PRIMARY KEY NOT NULL REFERENCES payments (id),
    amount     BIGINT NOT NULL,
    currency   TEXT NOT NULL,
    at         BIGINT NOT NULL
);

-- Rows are only ever added.
CREATE TABLE transactions (
    id         UUID PRIMARY KEY NOT NULL,
    payment_id UUID NOT NULL REFERENCES payments (id),
    event      TEXT NOT NULL,
    status     TEXT NOT NULL,
    detail     TEXT NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX transactions_payment ON transactions (payment_id, at);
