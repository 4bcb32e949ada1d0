DROP TABLE notices;
DROP INDEX sagas_queued;
ALTER TABLE sagas DROP COLUMN queued_until;
