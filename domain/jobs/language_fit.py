"""Whether a method for language models can learn from rows, and takes what was chosen."""

from domain.jobs.spec import METHODS, PREFERENCE_METHODS, HyperparameterChoices, Method, RowKind


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
    """What does not fit, in words."""
    chosen = choices.model_dump(exclude_none=True)
    if method == "sequence_classification" and chosen.get("tuning", "lora") != "lora":
        return f"{method} is trained with lora; {chosen['tuning']} is for language models"
    if chosen.get("preference") and method not in PREFERENCE_METHODS:
        return f"{method} takes no preference: it does not compare answers"
    if chosen.get("grpo") and method != "grpo":
        return f"{method} takes no grpo: it is rewarded for nothing"
    rewarded = chosen.get("grpo", {})
    if rewarded.get("reward") == "regular_expression" and not rewarded.get("pattern"):
        return "grpo.reward regular_expression needs grpo.pattern"
    return None
