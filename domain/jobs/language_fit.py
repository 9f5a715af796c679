"""Whether a method for language models can learn from rows, and takes what was chosen."""

from domain.jobs.spec import (
    METHODS,
    PREFERENCE_METHODS,
    HyperparameterChoices,
    Hyperparameters,
    Method,
    RowKind,
)


def learns_from(method: Method, kind: RowKind) -> bool:
    """Reinforcement asks the prompts of conversations, and knows what is right from their answers."""
    match method:
        case "grpo":
            return METHODS[kind] == "sft" and kind != "text"  # which asks nothing
        case "dpo" | "orpo" | "simpo":
            return kind == "preference"
        case _:
            return METHODS[kind] == method


def language_misfit(method: Method, choices: HyperparameterChoices) -> str | None:
    """What does not fit, in words; a choice that changes nothing fits, as in those of another job."""
    chosen = choices.model_dump(exclude_none=True)
    usual = Hyperparameters()
    if method == "sequence_classification" and chosen.get("tuning", "lora") != "lora":
        return f"{method} is trained with lora; {chosen['tuning']} is for language models"
    preferred = chosen.get("preference", {}).items() <= usual.preference.model_dump().items()
    if not preferred and method not in PREFERENCE_METHODS:
        return f"{method} takes no preference: it does not compare answers"
    rewarded = chosen.get("grpo", {})
    if method != "grpo" and not rewarded.items() <= usual.grpo.model_dump().items():
        return f"{method} takes no grpo: it is rewarded for nothing"
    if rewarded.get("reward") == "regular_expression" and not rewarded.get("pattern"):
        return "grpo.reward regular_expression needs grpo.pattern"
    return None
