DROP TABLE reservation_items;
DROP TABLE reservations;
DROP TABLE products;
DROP TABLE categories;
