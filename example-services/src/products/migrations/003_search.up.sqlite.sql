-- Words of name and description. Reservations change neither, and so cost nothing here.
CREATE VIRTUAL TABLE product_words USING fts5 (name, description, product_id UNINDEXED, tokenize = 'unicode61');
INSERT INTO product_words (name, description, product_id) SELECT name, description, id FROM products;

CREATE TRIGGER product_words_insert AFTER INSERT ON products BEGIN
    INSERT INTO product_words (name, description, product_id) VALUES (new.name, new.description, new.id);
END;
CREATE TRIGGER product_words_update AFTER UPDATE OF name, description ON products BEGIN
    UPDATE product_words SET name = new.name, description = new.description WHERE product_id = new.id;
END;
CREATE TRIGGER product_words_delete AFTER DELETE ON products BEGIN
    DELETE FROM product_words WHERE product_id = old.id;
END;
