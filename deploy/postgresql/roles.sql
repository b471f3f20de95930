-- Two roles for one study: rootnote_owner owns the tables and migrates them; rootnote_app reads and writes rows and
-- can neither drop, alter, truncate nor create anything. This limits what someone who breaks into the web server can
-- do: the audit log, which triggers keep append-only, stays append-only.
--
-- Run it once per database (again for a restored one, where it only resets the passwords), as a superuser or the
-- provider's administrator, connected to the study's own, still empty database:
--
--   psql -v owner_password="$(cat owner.txt)" -v app_password="$(cat app.txt)" -f roles.sql rootnote
--
-- Then migrate as the owner, and run the server as the app:
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
-- A provider's administrator is not a superuser and needs this for the next statements.
GRANT rootnote_owner TO CURRENT_USER;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO rootnote_owner;
GRANT USAGE ON SCHEMA public TO rootnote_app;

-- The database itself: no other role can connect, and no role can create temporary tables or schemas.
SELECT current_database() AS study \gset
REVOKE ALL ON DATABASE :"study" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"study" TO rootnote_owner, rootnote_app;

-- The app may use whatever the owner creates from now on, by migrating or restoring.
ALTER DEFAULT PRIVILEGES FOR ROLE rootnote_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO rootnote_app;
ALTER DEFAULT PRIVILEGES FOR ROLE rootnote_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO rootnote_app;

-- No role but a superuser makes large objects, which would fill the disk outside any table.
DO $$
BEGIN
    REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea), lo_import(text),
        lo_import(text, oid) FROM PUBLIC;
    REVOKE EXECUTE ON FUNCTION lo_open(oid, integer), lowrite(integer, bytea), lo_put(oid, bigint, bytea) FROM PUBLIC;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'large objects cannot be forbidden: the functions belong to the provider';
END $$;

-- A statement that hangs is cancelled, so that it does not block places.
ALTER ROLE rootnote_app SET statement_timeout = '30s';
ALTER ROLE rootnote_app SET idle_in_transaction_session_timeout = '60s';
COMMIT;
