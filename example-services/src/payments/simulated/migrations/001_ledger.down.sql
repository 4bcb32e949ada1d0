DROP TABLE tokens;
DROP TABLE requests;
DROP TABLE movements;
DROP TABLE charges;
