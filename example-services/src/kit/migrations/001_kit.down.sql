DROP TABLE events;
DROP TABLE idempotency;
