-- Safe to run at any time: it makes what is missing and sets the rest.
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY[:'owner', :'app']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE :"app" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

-- A second login that acts as the application's role, from the first change of a password on.
SELECT format('CREATE ROLE %I', :'login')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'login') \gexec
ALTER ROLE :"login" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
SELECT format('GRANT %I TO %I', :'app', :'login') WHERE :'login' <> :'app' \gexec

-- As this role pg_dump sees the rows that row-level security hides from the owner, who could turn that off as well.
SELECT left(:'app' || '_backup', 63) AS backup \gset
SELECT format('CREATE ROLE %I BYPASSRLS IN ROLE pg_read_all_data', :'backup')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'backup') \gexec
SELECT format('GRANT %I TO %I', rolname, :'owner') FROM pg_roles
WHERE rolname = :'backup' AND rolbypassrls AND NOT rolcanlogin AND NOT pg_has_role(:'owner', oid, 'MEMBER') \gexec

SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
ALTER DATABASE :"database" OWNER TO :"owner";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"database" TO :"app";

-- The application reads and writes what the owner creates, now and later.
\connect :"database"
GRANT USAGE ON SCHEMA public TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT USAGE ON SCHEMAS TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO :"app";

-- Acting as the owner keeps every table the owner's, so the choice can be changed later.
\if :separate_owner
SELECT format('REVOKE %I FROM %I', :'owner', :'app') WHERE pg_has_role(:'app', :'owner', 'MEMBER') \gexec
ALTER ROLE :"app" RESET role;
SELECT format('ALTER ROLE %I SET role = %L', :'login', :'app') WHERE :'login' <> :'app' \gexec
\else
GRANT :"owner" TO :"app";
ALTER ROLE :"app" SET role = :'owner';
ALTER ROLE :"login" SET role = :'owner';
\endif
