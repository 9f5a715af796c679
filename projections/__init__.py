"""Events in, Postgres rows out; and the queries that read them."""
