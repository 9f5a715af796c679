"""The embedded stack: NATS, Postgres and our own processes as children of one parent."""
