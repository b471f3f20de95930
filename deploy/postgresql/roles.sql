-- Two roles for one study: rootnote_owner owns the tables and migrates them; rootnote_app reads and writes rows and
-- can neither drop, alter, truncate nor create anything, so that what a break-in of the web server can do ends there
-- (the desk's log, which triggers keep append-only, stays so too).
--
-- Run it once a database (a second time, for a restored one, it only sets the passwords anew), as a superuser or the provider's administrator, connected to the study's own, still empty database:
--
--   psql -v owner_password="$(cat owner.txt)" -v app_password="$(cat app.txt)" -f roles.sql rootnote
--
-- Then migrate as the owner and serve as the app:
--
--   ROOTNOTE_DATABASE_URL=postgresql://rootnote_owner:…@host/rootnote rootnote server migrate STUDY
--   ROOTNOTE_DATABASE_URL=postgresql://rootnote_app:…@host/rootnote   rootnote server run STUDY
\set ON_ERROR_STOP on
SET client_min_messages = warning;
BEGIN;
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', name)
FROM unnest(ARRAY['rootnote_owner', 'rootnote_app']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE rootnote_owner PASSWORD :'owner_password';
ALTER ROLE rootnote_app PASSWORD :'app_password';
-- A provider's administrator, who is no superuser, needs this for what follows.
GRANT rootnote_owner TO CURRENT_USER;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO rootnote_owner;
GRANT USAGE ON SCHEMA public TO rootnote_app;

-- The database itself: nobody else gets in, and nobody makes temporary tables or schemas.
SELECT current_database() AS study \gset
REVOKE ALL ON DATABASE :"study" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"study" TO rootnote_owner, rootnote_app;

-- Whatever the owner makes from now on, by migrating or restoring, the app may use.
ALTER DEFAULT PRIVILEGES FOR ROLE rootnote_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO rootnote_app;
ALTER DEFAULT PRIVILEGES FOR ROLE rootnote_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO rootnote_app;

-- A statement that hangs ends by itself instead of holding places.
ALTER ROLE rootnote_app SET statement_timeout = '30s';
ALTER ROLE rootnote_app SET idle_in_transaction_session_timeout = '60s';
COMMIT;
