DROP TABLE signing_keys;
DROP TABLE failed_logins;
DROP TABLE refresh_tokens;
DROP TABLE sessions;
DROP TABLE users;
