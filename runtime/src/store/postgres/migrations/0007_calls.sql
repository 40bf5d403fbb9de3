-- Routines of `effectively`, version 7: what a call sends.

-- The procedures effectively_claim and effectively_complete_or_raise of version 1 stay for processes that have not been replaced yet.

-- The first step of a call, in a transaction of its own: from here to the end of the call the server refuses every write outside
-- a transaction that says READ WRITE. sqlx answers a savepoint that is dropped before the server has answered with a ROLLBACK of
-- everything; what the body writes after that must not commit by itself. The setting would be rolled back with the transaction
-- that claims, so it is committed before that one begins.
-- A session that is read-only already leads to a server that must not be written to: READ WRITE would overrule that.
CREATE PROCEDURE effectively_protect_session () LANGUAGE plpgsql AS $$
BEGIN
    -- A transaction that an earlier borrower has left open is not committed with ours: its time is not that of this message.
    IF now() <> statement_timestamp() THEN
        RAISE EXCEPTION 'effectively: the session is in a transaction' USING ERRCODE = 'active_sql_transaction';
    END IF;
    IF current_setting('transaction_read_only') = 'on' OR set_config('default_transaction_read_only', 'on', false) IS NULL THEN
        RAISE EXCEPTION 'effectively: the session is read-only' USING ERRCODE = 'read_only_sql_transaction';
    END IF;
END
$$;

-- Claims a key or raises. Never waits: the try-lock tells that another call holds the key, the primary key decides.
-- A function, so that the server plans its statements once per session and not once per call, and called by SELECT, whose constants
-- every version of pg_stat_statements leaves out. Bytes come as hex: no setting changes how it is read.
CREATE FUNCTION effectively_claim_key (
    claim_id text, claim_scope text, claim_attempt text, claim_fingerprint text, retention_ms bigint, lock_id bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The setting: the server notices when the client is gone; its statement would run on and hold its locks. A condition is
    -- evaluated directly, where PERFORM would be a query.
    IF set_config('client_connection_check_interval', '1000', true) IS NOT NULL AND pg_try_advisory_xact_lock(lock_id) THEN
        INSERT INTO effectively_claims (id, scope, attempt, fingerprint, gate, expires_at)
        VALUES (
            decode(claim_id, 'hex'), claim_scope, decode(claim_attempt, 'hex'), decode(claim_fingerprint, 'hex'), 1,
            now() + retention_ms * interval '1 millisecond'
        ) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION 'effectively: key already claimed, its outcome will be replayed' USING ERRCODE = 'ZE001';
END
$$;

-- The fence in one message with COMMIT: closes the open claim of this attempt or raises. An UPDATE of no row would let COMMIT go on.
-- The attempt is in the error, so that no trigger of the application can raise the same by chance.
-- The last setting ends what effectively_protect_session began, and only if COMMIT goes through.
CREATE FUNCTION effectively_complete_key (claim_id text, claim_attempt text, claim_outcome text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    read_only text;
BEGIN
    UPDATE effectively_claims SET outcome = decode(claim_outcome, 'hex'), gate = NULL
    WHERE id = decode(claim_id, 'hex') AND attempt = decode(claim_attempt, 'hex') AND gate = 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'effectively: the transaction is not the one that claimed the key'
        USING ERRCODE = 'ZE002', CONSTRAINT = claim_attempt;
    END IF;
    read_only := set_config('default_transaction_read_only', NULL, false);
END
$$;

-- The same for a call without a key: its witness is a setting that ends with the transaction it was made in.
CREATE FUNCTION effectively_check_attempt (call_attempt text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    read_only text;
BEGIN
    IF current_setting('effectively.attempt', true) IS DISTINCT FROM call_attempt THEN
        RAISE EXCEPTION 'effectively: the transaction is not the one that began'
        USING ERRCODE = 'ZE002', CONSTRAINT = call_attempt;
    END IF;
    read_only := set_config('default_transaction_read_only', NULL, false);
END
$$;
