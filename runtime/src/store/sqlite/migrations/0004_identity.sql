-- Tables of `effectively`, version 4: which database this is, and who uses which scope. Times are milliseconds since 1970, UTC.

-- One row. A copy of the file and a restored backup keep it; a new file has another. If the row is missing, it is made again with
-- a new id.
CREATE TABLE effectively_identity (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  BLOB    NOT NULL
);

INSERT INTO effectively_identity (one, id) VALUES (1, randomblob(16));

-- Where the handlers of each scope were seen, so that two functions with one scope are found in different processes, too.
CREATE TABLE effectively_scopes (
    scope   TEXT    NOT NULL,
    -- The function with its modules.
    path    TEXT    NOT NULL,
    -- The same with its file and line, as they were last.
    place   TEXT    NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (scope, path)
) WITHOUT ROWID;
