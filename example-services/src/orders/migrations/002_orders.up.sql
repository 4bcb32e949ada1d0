CREATE TABLE orders (
    id              UUID PRIMARY KEY NOT NULL,
    user_id         TEXT NOT NULL,
    status          TEXT NOT NULL,
    sub_total       BIGINT NOT NULL CHECK (sub_total >= 0),
    tax             BIGINT NOT NULL CHECK (tax >= 0),
    shipping        BIGINT NOT NULL CHECK (shipping >= 0),
    total           BIGINT NOT NULL CHECK (total = sub_total + tax + shipping),
    currency        TEXT NOT NULL,
    street          TEXT NOT NULL,
    city            TEXT NOT NULL,
    state           TEXT NOT NULL,
    zip_code        TEXT NOT NULL,
    country         TEXT NOT NULL,
    shipping_method TEXT NOT NULL,
    notes           TEXT NOT NULL,
    payment_id      TEXT,
    cancel_reason   TEXT,
    tracking_number TEXT,
    version         BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX orders_user ON orders (user_id, status);
CREATE INDEX orders_status ON orders (status);
CREATE INDEX orders_created ON orders (created_at);

CREATE TABLE order_items (
    order_id   UUID NOT NULL REFERENCES orders (id),
    line       BIGINT NOT NULL,
    product_id TEXT NOT NULL,
    quantity   BIGINT NOT NULL CHECK (quantity BETWEEN 1 AND 100),
    unit_price BIGINT NOT NULL CHECK (unit_price >= 0),
    shipped    BIGINT NOT NULL DEFAULT 0 CHECK (shipped BETWEEN 0 AND quantity),
    PRIMARY KEY (order_id, line)
);

CREATE TABLE order_status_history (
    order_id UUID NOT NULL REFERENCES orders (id),
    entry    BIGINT NOT NULL,
    status   TEXT NOT NULL,
    note     TEXT NOT NULL,
    at       BIGINT NOT NULL,
    actor    TEXT NOT NULL,
    PRIMARY KEY (order_id, entry)
);

-- `record` is the saga as JSON; what is searched for stands beside it.
CREATE TABLE sagas (
    id          UUID PRIMARY KEY NOT NULL,
    order_id    UUID NOT NULL UNIQUE,
    user_id     TEXT NOT NULL,
    operation   TEXT NOT NULL,
    state       TEXT NOT NULL,
    -- Nothing is left to do or to look at.
    settled     BOOLEAN NOT NULL,
    manual      BOOLEAN NOT NULL,
    record      TEXT NOT NULL,
    -- A client's wish that reaches whoever drives it with the next change.
    cancel      TEXT,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    -- Who drives it, and until when nobody else may.
    lease       UUID,
    lease_until BIGINT NOT NULL
);
CREATE INDEX sagas_open ON sagas (settled, lease_until);
CREATE INDEX sagas_updated ON sagas (state, updated_at);
