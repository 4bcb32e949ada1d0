CREATE TABLE users (
    id            UUID PRIMARY KEY NOT NULL,
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    first_name    TEXT NOT NULL,
    last_name     TEXT NOT NULL,
    street        TEXT,
    city          TEXT,
    state         TEXT,
    zip_code      TEXT,
    country       TEXT,
    username      TEXT UNIQUE,
    status        TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    is_active     BOOLEAN NOT NULL,
    profile       TEXT,
    preferences   TEXT,
    roles         TEXT NOT NULL,
    version       BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);
CREATE INDEX users_is_active ON users (is_active);
CREATE INDEX users_email_status ON users (email, status);
CREATE INDEX users_created ON users (created_at, id);

CREATE TABLE sessions (
    id         UUID PRIMARY KEY NOT NULL,
    user_id    UUID NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id);

-- A refresh token is good once. The used ones of a session are remembered, because one that is shown again was stolen.
CREATE TABLE refresh_tokens (
    hash       TEXT PRIMARY KEY NOT NULL,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);

-- Who could not sign in is known by the hash of the address only: it may be anybody's.
CREATE TABLE failed_logins (
    id         UUID PRIMARY KEY NOT NULL,
    email_hash TEXT NOT NULL,
    reason     TEXT NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX failed_logins_at ON failed_logins (at);

CREATE TABLE signing_keys (
    id         TEXT PRIMARY KEY NOT NULL,
    secret     TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
