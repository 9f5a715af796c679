"""The read model's tables. They are disposable: dropped and replayed from the log, never migrated.

Every primary key begins with the workspace, and so does every index: a stream belongs to one
workspace, and no query looks across them.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA: Final = "finetrail"
CHANNEL: Final = "finetrail_projection"  # NOTIFY: "<projection> <sequence>", once a transaction

metadata: Final = MetaData(schema=SCHEMA)
_Time = DateTime(timezone=True)


def _workspace() -> Column[str]:
    return Column("workspace", Text, primary_key=True)


def _history() -> tuple[Column[int], Column[int]]:
    """Log sequences: of the event that made the row (pages go by it) and of its stream's last one."""
    return (
        Column("created_sequence", BigInteger, nullable=False),
        Column("sequence", BigInteger, nullable=False),
    )


def _states(of: Table) -> Table:
    """Every state that a table's rows have had: valid from a log sequence until the key's next one.

    Nothing is ever changed in it, so it is filled as fast as it can be copied.
    """
    columns = [
        Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in of.columns
    ]
    since = Column("valid_from", BigInteger, primary_key=True, autoincrement=False)
    changes = Index(f"{of.name}_changes", "workspace", "valid_from")
    return Table(f"{of.name}_history", metadata, *columns, since, changes)


dataset = Table(
    "dataset",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("format", Text, nullable=False),
    Column("delimiter", Text),
    Column("kind", Text, nullable=False),
    Column("text_column", Text, nullable=False),
    Column("label_column", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("duplicate_rows", BigInteger),
    Column("conflicting_texts", BigInteger),
    Column("longest_text_chars", BigInteger),
    Column("mean_text_chars", Double),
    Column("messages", BigInteger),
    Column("supervised_messages", BigInteger),
    Column("example", JSONB, nullable=False),
    Column("table_schema", JSONB),
    Column("table_report", JSONB),
    Column("compression", Text),
    Column("why", Text, nullable=False),
    Column("code", Text),
    Column("message", Text),
    Column("created_at", _Time, nullable=False),
    Column("person_id", Uuid),
    Index("dataset_by_age", "workspace", text("created_sequence DESC")),
)

dataset_history = _states(dataset)

job = Table(
    "job",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("model", Text, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("dataset_id", Uuid, nullable=False),
    Column("test_dataset_id", Uuid),
    Column("spec", JSONB, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("agent_id", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("epochs", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("steps", BigInteger),
    Column("checkpoint_step", BigInteger),
    Column("micro_batch_tokens", BigInteger),
    Column("environment", JSONB),
    Column("base_model_record", JSONB),
    Column("supervision", JSONB),
    Column("train_rows", BigInteger),
    Column("validation_rows", BigInteger),
    Column("test_rows", BigInteger),
    Column("trainable_parameters", BigInteger),
    Column("total_parameters", BigInteger),
    Column("trained_tokens", BigInteger),
    Column("seconds", Double),
    Column("final_loss", Double),
    Column("validation_accuracy", Double),
    Column("interrupted", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("version_id", Uuid),
    Column("version_number", BigInteger),
    Column("evaluation_id", Uuid),
    Column("started_at", _Time),
    Column("ended_at", _Time),
    Column("submitted_by", Text, nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("pool", Text),
    Column("needs", JSONB, nullable=False),
    Index("job_by_age", "workspace", text("created_sequence DESC")),
    Index("job_by_status", "workspace", "status", text("created_sequence DESC")),
    Index("job_by_model", "workspace", "model", text("created_sequence DESC")),
)

job_epoch = Table(
    "job_epoch",
    metadata,
    _workspace(),
    Column("job_id", Uuid, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("train_loss", Double, nullable=False),
    Column("validation_loss", Double),
    Column("validation_accuracy", Double),
    Column("seconds", Double, nullable=False),
    Column("time", _Time, nullable=False),
)


def _step_metrics() -> tuple[Column[int] | Column[float], ...]:
    return (
        Column("sequence", BigInteger, nullable=False),
        Column("attempt", BigInteger, nullable=False),
        Column("epoch", Double, nullable=False),
        Column("loss", Double, nullable=False),
        Column("learning_rate", Double, nullable=False),
        Column("grad_norm", Double, nullable=False),
        Column("tokens_per_s", Double, nullable=False),
        Column("eta_s", Double, nullable=False),
    )


job_step = Table(
    "job_step",
    metadata,
    _workspace(),
    Column("job_id", Uuid, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    *_step_metrics(),
    Column("time", _Time, nullable=False),
)

# Written from telemetry, and `job` from the log: two runners never write one row.
job_progress = Table(
    "job_progress",
    metadata,
    _workspace(),
    Column("job_id", Uuid, primary_key=True),
    Column("step", BigInteger, nullable=False),
    *_step_metrics(),
    Column("time", _Time, nullable=False),
)

model = Table(
    "model",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("name", Text, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("versions", BigInteger, nullable=False),
    Column("latest", BigInteger),
    Column("active_number", BigInteger),
    Column("active_version_id", Uuid),
    Column("activated_at", _Time),
    Column("activated_by", Text),
    Column("created_at", _Time, nullable=False),
    Index("model_by_age", "workspace", text("created_sequence DESC")),
    Index("model_by_name", "workspace", "name"),
)

model_history = _states(model)

model_version = Table(
    "model_version",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("model_id", Uuid, nullable=False),
    Column("model", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("label", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("message", Text),
    Column("job_id", Uuid, nullable=False),
    Column("method", Text, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("base_model_record", JSONB),
    Column("labels", JSONB, nullable=False),
    Column("files", JSONB, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("environment", JSONB, nullable=False),
    Column("train_rows", BigInteger, nullable=False),
    Column("trained_tokens", BigInteger, nullable=False),
    Column("steps", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("final_loss", Double, nullable=False),
    Column("validation_accuracy", Double),
    Column("created_at", _Time, nullable=False),
    Index("model_version_by_number", "workspace", "model_id", text("number DESC")),
)

model_version_history = _states(model_version)

evaluation = Table(
    "evaluation",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("version_id", Uuid, nullable=False),
    Column("model_id", Uuid, nullable=False),
    Column("model", Text, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("agent_id", Text),
    Column("summary", JSONB),
    Column("outputs", JSONB),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("created_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("ended_at", _Time),
    Index("evaluation_by_age", "workspace", text("created_sequence DESC")),
    Index("evaluation_by_model", "workspace", "model", text("created_sequence DESC")),
    Index("evaluation_by_version", "workspace", "version_id", text("created_sequence DESC")),
)

evaluation_history = _states(evaluation)

# Apart from `evaluation`, so that lists and folds do not carry the texts.
evaluation_examples = Table(
    "evaluation_examples",
    metadata,
    _workspace(),
    Column("evaluation_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("examples", JSONB, nullable=False),
)

agent = Table(
    "agent",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("accelerator", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("methods", JSONB, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("invited_by", Text),
    Column("expires_at", _Time),
    Column("joined_at", _Time),
)

agent_history = _states(agent)

work_item = Table(
    "work_item",
    metadata,
    _workspace(),
    Column("work_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("agent_id", Text),
    Column("reason", Text),
    Column("asked_by", Text, nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("pool", Text),
    Column("accelerator", Text),
    Column("memory_bytes", BigInteger),
    Column("starts", BigInteger, nullable=False),
    Column("queued_sequence", BigInteger, nullable=False),
    Column("queued_at", _Time, nullable=False),
    Column("assigned_at", _Time),
    Index(
        "work_item_in_order",
        "workspace",
        "queued_sequence",
        postgresql_where=text("status <> 'withdrawn'"),
    ),
)

# Of a workspace's queue, what decisions depend on beside the work itself; see `domain.queues.state`.
queue_ledger = Table(
    "queue_ledger",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("policy", JSONB, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("starts", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("recent", JSONB, nullable=False),
    Column("agents", JSONB, nullable=False),
    Column("policy_sequence", BigInteger, nullable=False),
    Column("policy_set_at", _Time),
    Column("policy_set_by", Text),
)

access_key = Table(
    "access_key",
    metadata,
    _workspace(),
    Column("key_id", Text, primary_key=True),
    *_history(),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", _Time),
    Column("person_id", Uuid, nullable=False),
)

access_key_history = _states(access_key)

person = Table(
    "person",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("name", Text),
    Column("status", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("forgotten_at", _Time),
    Column("forgotten_by", Text),
    Column("reason", Text),
)

person_history = _states(person)

webhook = Table(
    "webhook",
    metadata,
    _workspace(),
    Column("id", Uuid, primary_key=True),
    *_history(),
    Column("url", Text, nullable=False),
    Column("url_id", Text, nullable=False),
    Column("event_types", JSONB),
    Column("description", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("disabled_by", Text),
    Column("reason", Text),
    Column("key_id", Text, nullable=False),
    Column("old_key_id", Text),
    Column("old_key_valid_until", _Time),
    Column("created_at", _Time, nullable=False),
    Column("created_by", Text, nullable=False),
)

webhook_history = _states(webhook)

timeline = Table(
    "timeline",
    metadata,
    _workspace(),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("aggregate", Text, nullable=False),
    Column("aggregate_id", Uuid, nullable=False),
    Column("actor", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("correlation_id", Uuid, nullable=False),
    Column("causation_id", Uuid, nullable=False),
    Column("time", _Time, nullable=False),
    Column("data", JSONB, nullable=False),
    Index("timeline_by_aggregate", "workspace", "aggregate", "aggregate_id", "sequence"),
    Index("timeline_by_type", "workspace", "type", "sequence"),
    Index("timeline_by_actor", "workspace", "actor", "sequence"),
    Index("timeline_by_id", "workspace", "id"),
    # What a job's row takes from the streams of others; see `projections.jobs`.
    Index(
        "timeline_for_jobs",
        "workspace",
        text("(data ->> 'job_id')"),
        "sequence",
        postgresql_where=text("type IN ('EvaluationRequested', 'VersionRegistered')"),
    ),
)

# The earliest time among every so many events, to find a moment in the log without reading it all.
timeline_block = Table(
    "timeline_block",
    metadata,
    _workspace(),
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("earliest", _Time, nullable=False),
)

projection_checkpoint = Table(
    "projection_checkpoint",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("error", Text),
    Column("updated_at", _Time, nullable=False, server_default=func.now()),
    # One more with each switch to other tables: whoever writes into those before it is refused.
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
)

# Where each view's tables lie, and behind which sequence it stands still if it cannot go on.
projection_view = Table(
    "projection_view",
    metadata,
    Column("name", Text, primary_key=True),
    Column("projection", Text, nullable=False),
    Column("schema", Text, nullable=False),
    Column("parked_at", BigInteger),  # sequence of what could not be read or written
    Column("error", Text),
    Column("parked_since", _Time),
)

# A rebuild that was asked for, is under way, or has ended.
projection_rebuild = Table(
    "projection_rebuild",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("projection", Text, nullable=False),
    Column("views", ARRAY(Text), nullable=False),
    Column("reason", Text, nullable=False),  # asked, upgrade
    Column("status", Text, nullable=False),  # asked, filling, switching, switched, failed
    Column("fingerprint", Text),
    Column("schema", Text),
    Column("sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("goal", BigInteger, nullable=False, server_default=text("0")),
    Column("parked", JSONB, nullable=False, server_default=text("'{}'")),
    Column("found", JSONB),  # what was different, by view
    Column("error", Text),
    Column("switch_ms", Double),
    Column("asked_at", _Time, nullable=False, server_default=func.now()),
    Column("began_at", _Time),
    Column("filled_at", _Time),  # when it had come near the log's end
    Column("updated_at", _Time, nullable=False, server_default=func.now()),
)

BOOKKEEPING: Final = (projection_checkpoint, projection_view, projection_rebuild)
