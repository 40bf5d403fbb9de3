-- Tables of `effectively`, version 4: which database this is, and who uses which scope.

-- One row. A copy of the database and a restored backup keep it; a new database has another. If the row is missing, it is made
-- again with a new id.
CREATE TABLE effectively_identity (
    one smallint PRIMARY KEY CHECK (one = 1),
    id  uuid     NOT NULL
);

INSERT INTO effectively_identity (one, id) VALUES (1, pg_catalog.gen_random_uuid());

-- Where the handlers of each scope were seen, so that two functions with one scope are found in different processes, too.
CREATE TABLE effectively_scopes (
    scope   text        NOT NULL,
    -- The function with its modules.
    path    text        NOT NULL,
    -- The same with its file and line, as they were last.
    place   text        NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (scope, path)
);
