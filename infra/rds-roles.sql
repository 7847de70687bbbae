-- The application's two roles on RDS, made by its master user. Safe to repeat; README.md has the command.
\set ON_ERROR_STOP on
\getenv owner_password OWNER_PASSWORD
\getenv application_password APPLICATION_PASSWORD
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY['flaskapp_owner', 'flaskapp']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE flaskapp_owner LOGIN PASSWORD :'owner_password';
ALTER ROLE flaskapp LOGIN PASSWORD :'application_password';

-- The master user is no superuser: it must be a member to hand something over.
GRANT flaskapp_owner TO CURRENT_USER;
ALTER DATABASE flaskapp OWNER TO flaskapp_owner;
REVOKE ALL ON DATABASE flaskapp FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE flaskapp TO flaskapp;
-- The application reads and writes what the owner creates, now and later.
SET ROLE flaskapp_owner;
GRANT USAGE ON SCHEMA public TO flaskapp;
ALTER DEFAULT PRIVILEGES FOR ROLE flaskapp_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO flaskapp;
ALTER DEFAULT PRIVILEGES FOR ROLE flaskapp_owner GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO flaskapp;
