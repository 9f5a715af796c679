"""What an adapter's folder is made of, in peft's own format."""

import json
from pathlib import Path
from typing import Final

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"


def write_json(path: Path, content: object) -> None:
    """Equal contents give equal bytes."""
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
