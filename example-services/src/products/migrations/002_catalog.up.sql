CREATE TABLE categories (
    id          UUID PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL UNIQUE,
    parent_id   UUID REFERENCES categories (id),
    description TEXT NOT NULL
);

-- What is held never exceeds what is there: whatever a program gets wrong, this refuses.
CREATE TABLE products (
    id          UUID PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    price       BIGINT NOT NULL CHECK (price >= 0),
    category    TEXT NOT NULL,
    category_id UUID REFERENCES categories (id),
    sku         TEXT NOT NULL UNIQUE,
    image_url   TEXT,
    weight      TEXT,
    length      TEXT,
    width       TEXT,
    height      TEXT,
    stock       BIGINT NOT NULL CHECK (stock >= 0),
    reserved    BIGINT NOT NULL CHECK (reserved >= 0 AND reserved <= stock),
    version     BIGINT NOT NULL,
    is_active   BOOLEAN NOT NULL,
    shop_id     TEXT,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);
CREATE INDEX products_created ON products (created_at, id);
CREATE INDEX products_category ON products (category, price, name);
CREATE INDEX products_category_id ON products (category_id);
CREATE INDEX products_shop ON products (shop_id);

CREATE TABLE reservations (
    id         UUID PRIMARY KEY NOT NULL,
    order_id   UUID NOT NULL UNIQUE,
    state      TEXT NOT NULL CHECK (state IN ('held', 'committed', 'released', 'expired', 'restocked')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX reservations_expiry ON reservations (state, expires_at);

CREATE TABLE reservation_items (
    reservation_id UUID NOT NULL REFERENCES reservations (id),
    product_id     UUID NOT NULL REFERENCES products (id),
    quantity       BIGINT NOT NULL CHECK (quantity > 0),
    unit_price     BIGINT NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (reservation_id, product_id)
);
