"""HTTP and SSE: commands by message, queries from the read models."""
