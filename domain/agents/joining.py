"""What a machine signs to show that it has the private half of the key it joins with."""


def statement(token: str, public_key: str, name: str) -> bytes:
    """The token is the nonce: it is random, ours, and good for one machine."""
    return f"finetrail join\n{token}\n{public_key}\n{name}".encode()
