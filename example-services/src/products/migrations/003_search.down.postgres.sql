ALTER TABLE products DROP COLUMN words;
