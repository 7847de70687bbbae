-- The login in use has no end. The password of the other one has, set once, so that repeating this moves nothing.
ALTER ROLE :"login" VALID UNTIL 'infinity';
SELECT format('ALTER ROLE %I VALID UNTIL %L', rolname, now() + :'overlap') FROM pg_roles
WHERE rolname IN (:'app', :'app' || '_2') AND rolname <> :'login' AND coalesce(rolvaliduntil, 'infinity') = 'infinity' \gexec
