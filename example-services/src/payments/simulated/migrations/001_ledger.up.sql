CREATE TABLE charges (
    id         TEXT PRIMARY KEY NOT NULL,
    key        TEXT NOT NULL,
    amount     BIGINT NOT NULL,
    currency   TEXT NOT NULL,
    behaviour  TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('authorized', 'captured', 'voided', 'declined')),
    reason     TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX charges_key ON charges (key);

-- Every movement of money, in the order in which it happened. The same again stands here twice.
CREATE TABLE movements (
    id        TEXT PRIMARY KEY NOT NULL,
    charge_id TEXT NOT NULL REFERENCES charges (id),
    kind      TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
    key       TEXT NOT NULL,
    amount    BIGINT NOT NULL,
    at        BIGINT NOT NULL
);
CREATE INDEX movements_charge ON movements (charge_id);

-- How often an operation was asked for, for behaviours that change.
CREATE TABLE requests (
    key   TEXT PRIMARY KEY NOT NULL,
    count BIGINT NOT NULL
);

CREATE TABLE tokens (
    token     TEXT PRIMARY KEY NOT NULL,
    behaviour TEXT NOT NULL
);
