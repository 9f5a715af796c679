"""Which tokens a language model learns from: renders all rows, leaves out what teaches nothing, and says so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domain.datasets.conversations import Conversation
from domain.jobs.spec import Hyperparameters
from domain.work import LogLine, Supervision
from gpu_agent.data import shuffled_batches
from gpu_agent.outcomes import WorkFailed
from gpu_agent.rendering import Rendered, render, segments
from gpu_agent.schedule import log, warning


class NothingSupervised(WorkFailed):
    """No row has a token left to learn from; a larger ``max_length`` may help."""

    code = "nothing_supervised"


@dataclass(frozen=True, slots=True)
class Learnable:
    """Rendered rows, each with something to learn from."""

    rows: tuple[Rendered, ...]
    truncated: int  # those without anything left to learn from among them
    dropped: int
    longest: int  # tokens, before truncation


def learnable(tokenizer: Any, conversations: Sequence[Conversation], max_length: int) -> Learnable:
    rendered = [render(tokenizer, conversation, max_length) for conversation in conversations]
    rows = tuple(row for row in rendered if row.targets)
    return Learnable(
        rows=rows,
        truncated=sum(row.truncated for row in rendered),
        dropped=len(rendered) - len(rows),
        longest=max((row.full_length for row in rendered), default=0),
    )


def supervise(
    tokenizer: Any, train: Learnable, config: Hyperparameters, max_length: int, seed: int
) -> Supervision:
    """Count what the loss will be taken over, and show one row of it.

    Raises:
        NothingSupervised: there is no row to train on.
    """
    if not train.rows:
        raise NothingSupervised(
            f"none of the {train.dropped} training rows has a token to learn from within "
            f"{max_length} tokens; the longest has {train.longest}"
        )
    tokens = sum(len(row.ids) for row in train.rows)
    return Supervision(
        rows=len(train.rows),
        tokens=tokens,
        supervised_tokens=sum(row.targets for row in train.rows),
        truncated_rows=train.truncated,
        dropped_rows=train.dropped,
        longest_row=train.longest,
        padding_share=padding_share(train.rows, config.batch_size, seed),
        example=segments(tokenizer, train.rows[0]),
    )


def told(found: Supervision, max_length: int, *, quoting: bool = True) -> Iterator[LogLine]:
    """Say the same in words; a row that is a person's is not quoted."""
    share = found.supervised_tokens / found.tokens
    yield log(
        f"the loss is taken over {found.supervised_tokens:,} of {found.tokens:,} tokens ({share:.0%}) "
        f"in {found.rows} rows; the longest has {found.longest_row}; packed without padding, which "
        f"would be {found.padding_share:.0%} of padded batches"
    )
    if found.truncated_rows:
        yield warning(
            f"{found.truncated_rows} rows are longer than {max_length} tokens and lose their end; "
            f"{found.dropped_rows} of them lose all there is to learn from and are left out"
        )
    if not quoting:
        return
    example = "".join(f"⟦{part.text}⟧" if part.supervised else part.text for part in found.example)
    yield log(f"a row as the model reads it, what it learns from in ⟦ ⟧:\n{example}")


def padding_share(rows: Sequence[Rendered], batch_size: int, seed: int) -> float:
    """What would be padding in the first epoch's batches, each row as long as the longest of its batch."""
    batches = shuffled_batches(len(rows), batch_size, seed, epoch=0)
    padded = sum(len(batch) * max(len(rows[at].ids) for at in batch) for batch in batches)
    return 1 - sum(len(row.ids) for row in rows) / padded
