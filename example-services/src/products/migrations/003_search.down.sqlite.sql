DROP TRIGGER product_words_delete;
DROP TRIGGER product_words_update;
DROP TRIGGER product_words_insert;
DROP TABLE product_words;
