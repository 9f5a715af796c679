"""`finetrail/tiny`: a language model of 0.7 million parameters that the product makes by itself, in seconds."""
