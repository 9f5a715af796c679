"""The API that OpenAI's clients speak, under ``/v1``: models, chat and text completions."""
