"""Fields that several request bodies share."""

from typing import Annotated

import msgspec

from domain.subjects import NAME

ModelName = Annotated[
    str,
    msgspec.Meta(
        # Ends where the text ends, also in dialects where $ lets a line break pass.
        pattern=f"^{NAME}$(?!\\n)",
        description="1 to 63 of a-z 0-9 . _ -, beginning and ending with a letter or a digit.",
    ),
]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
VersionNumber = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
