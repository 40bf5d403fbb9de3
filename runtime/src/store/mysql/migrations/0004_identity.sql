-- Tables of `effectively`, version 4: which database this is, and who uses which scope. Times are UTC.

-- One row. A copy of the database and a restored backup keep it; a new database has another. If the row is missing, it is made
-- again with a new id.
CREATE TABLE effectively_identity (
    one TINYINT    NOT NULL PRIMARY KEY CHECK (one = 1),
    id  BINARY(16) NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO effectively_identity (one, id) VALUES (1, RANDOM_BYTES(16));

-- Where the handlers of each scope were seen, so that two functions with one scope are found in different processes, too.
CREATE TABLE effectively_scopes (
    scope   VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The function with its modules.
    path    VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    -- The same with its file and line, as they were last.
    place   TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    seen_at DATETIME(6)  NOT NULL,
    PRIMARY KEY (scope, path)
) ENGINE = InnoDB;
