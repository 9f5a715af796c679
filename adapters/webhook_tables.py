"""The tables of webhooks and notifications in the schema ``state``; none is a read model."""

from typing import Final

MARKER: Final = "state.notification_read"  # made last: where it is, all are
MAKE: Final = """
    CREATE SCHEMA IF NOT EXISTS state;
    CREATE TABLE IF NOT EXISTS state.webhook_secret (
        webhook_id uuid NOT NULL,
        id text NOT NULL,
        value text NOT NULL,
        made_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (webhook_id, id)
    );
    CREATE TABLE IF NOT EXISTS state.webhook_cursor (
        webhook_id uuid PRIMARY KEY,
        sequence bigint NOT NULL,
        handled bigint NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS state.webhook_delivery (
        webhook_id uuid NOT NULL,
        sequence bigint NOT NULL,
        message_id text NOT NULL,
        type text NOT NULL,
        lane text NOT NULL,
        due_at timestamptz NOT NULL,
        attempts int NOT NULL,
        status text NOT NULL,
        failure text NOT NULL,
        retry_of bigint,
        changed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (webhook_id, sequence)
    );
    CREATE INDEX IF NOT EXISTS webhook_delivery_by_message ON state.webhook_delivery (message_id);
    CREATE TABLE IF NOT EXISTS state.webhook_attempt (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        webhook_id uuid NOT NULL,
        sequence bigint NOT NULL,
        message_id text NOT NULL,
        type text NOT NULL,
        attempt int NOT NULL,
        at timestamptz NOT NULL,
        outcome text NOT NULL,
        status int,
        latency_s double precision NOT NULL,
        error text NOT NULL,
        answer text NOT NULL
    );
    CREATE INDEX IF NOT EXISTS webhook_attempt_by_webhook
        ON state.webhook_attempt (webhook_id, id DESC);
    CREATE INDEX IF NOT EXISTS webhook_attempt_by_age ON state.webhook_attempt (at);
    CREATE TABLE IF NOT EXISTS state.webhook_position (
        name text PRIMARY KEY,
        sequence bigint NOT NULL
    );
    CREATE TABLE IF NOT EXISTS state.notification_read (
        workspace text NOT NULL,
        key_id text NOT NULL,
        notification text NOT NULL,
        read_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workspace, key_id, notification)
    );
"""
