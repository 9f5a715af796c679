"""Writes the chat examples: what customers write to a help desk, and what they want, as conversations.

    python -m bench.support_chat [FOLDER]

Equal bytes every time. The training rows are made of the tiny model's own wordings and slot values,
here with their intents. What is held out stands in this file alone, so no model has ever seen it.
"""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gpu_agent.tiny.corpus import PRODUCTS, TIMES, compose

FOLDER: Final = Path(__file__).parents[1] / "examples"
TRAIN_ROWS: Final = 1020  # 170 an intent
HELD_OUT_ROWS: Final = 240  # 40 an intent
SEED: Final = 0

INTENTS: Final[Mapping[str, Sequence[str]]] = {
    "billing": (
        "Can I pay for {p} by invoice?",
        "I need a VAT bill for {p}.",
        "My card was declined for {p}.",
        "Please send me the invoice of {p}.",
        "Please update my credit card for {p}.",
        "The bill that came {t} has a wrong name.",
        "The invoice for {p} is wrong.",
        "The invoice shows a wrong amount for {p}.",
        "There was an unknown fee on my bill {t}.",
        "Which fee did I pay {t}?",
        "Why was I charged twice for {p}?",
        "You booked the amount for {p} twice {t}.",
    ),
    "cancel": (
        "Can I quit the contract for {p} early?",
        "Do not renew {p}.",
        "How do I unsubscribe from {p}?",
        "I asked you {t} to end my contract.",
        "I ended my plan {t}, why is it still active?",
        "I no longer need {p}, cancel it.",
        "I want to stop the plan for {p}.",
        "My membership should have ended {t}.",
        "Please cancel my subscription to {p}.",
        "Please cancel the order of {p} before it is sent.",
        "Please take me off the subscription for {p}.",
        "Stop the renewal of {p}.",
    ),
    "delivery": (
        "Has {p} been shipped?",
        "How long does shipping of {p} take?",
        "I ordered {p} {t} and the parcel is not here.",
        "My order of {p} is late.",
        "The courier lost {p} {t}.",
        "The driver left {p} at another house {t}.",
        "The package with {p} went to a wrong address {t}.",
        "Tracking for {p} shows no progress.",
        "Was {p} handed to the courier {t}?",
        "When will {p} be delivered?",
        "Where is my parcel with {p}?",
        "{p} has not arrived yet.",
    ),
    "login": (
        "I changed my password {t} and cannot log in.",
        "I could not sign in to my account {t}.",
        "I forgot my password for {p}.",
        "I was locked out of the account {t}.",
        "My password for {p} does not work.",
        "My user name for {p} is unknown to the login page.",
        "Sign in failed with an error {t}.",
        "Somebody else signed in to my account {t}.",
        "The login for {p} says wrong password.",
        "The login page rejected me {t}.",
        "The reset link for {p} never comes.",
        "The two factor code is not accepted for {p}.",
    ),
    "refund": (
        "Can you reimburse me for {p}?",
        "Give me back what I paid for {p}.",
        "How long does the refund for {p} take?",
        "I returned {p} {t} and still have no money back.",
        "I sent {p} back {t}, where is my money?",
        "I want my money back for {p}.",
        "I was promised a refund for {p} {t}.",
        "My refund for {p} was due {t}.",
        "Please return the payment for {p}, it arrived broken.",
        "The charge for {p} must be reversed.",
        "{p} is faulty, pay me back.",
        "{p} never worked, refund me now.",
    ),
    "technical": (
        "How do I set up {p}?",
        "The app for {p} freezes.",
        "The battery of {p} is empty after an hour.",
        "The firmware update of {p} hung {t}.",
        "The screen of {p} stays black.",
        "The software of {p} is very slow.",
        "{p} crashes when I start it.",
        "{p} does not connect to wifi.",
        "{p} makes a strange noise.",
        "{p} showed error 503 {t}.",
        "{p} stopped working {t}.",
        "{p} turned itself off {t}.",
    ),
}
OTHER_WORDINGS: Final[Mapping[str, Sequence[str]]] = {
    "billing": (
        "Explain the extra fee on the bill of {p}.",
        "I got two bills for {p} {t}.",
        "My card expired {t}, how do I pay the bill?",
        "The amount on the invoice for {p} is too high.",
    ),
    "cancel": (
        "Close my plan for {p}.",
        "End the subscription for {p}.",
        "I would like to cancel {p} and not renew it.",
        "Terminate the contract I signed {t}.",
    ),
    "delivery": (
        "Can the courier bring {p} to another address?",
        "Delivery of {p} was planned for me {t}, and nobody came.",
        "I am still waiting for the shipment of {p}.",
        "The parcel with {p} should have arrived {t}.",
    ),
    "login": (
        "I forgot the password of {p} and cannot sign in.",
        "I have no access to my account, the login failed {t}.",
        "Please unlock my user account for {p}.",
        "The password reset for {p} failed.",
    ),
    "refund": (
        "I demand a full refund of {p}.",
        "Refund what I paid {t} for {p}.",
        "Reverse the payment, {p} is broken.",
        "The money for {p} has not been paid back.",
    ),
    "technical": (
        "The app crashes with an error on {p}.",
        "The screen of {p} froze {t}.",
        "{p} became very slow after the update {t}.",
        "{p} reboots all the time.",
    ),
}
OTHER_PRODUCTS: Final = (
    "a desk lamp",
    "a leather belt",
    "five towels",
    "my drone",
    "my watch",
    "the barbecue",
    "the bike helmet",
    "the dishwasher",
    "the hair dryer",
    "the speaker",
    "the toaster",
    "your magazine",
)
OTHER_TIMES: Final = (
    "an hour ago",
    "at midnight",
    "in October",
    "last spring",
    "on Friday",
    "on Wednesday",
    "some days ago",
    "the other evening",
)


def rows(
    wordings: Mapping[str, Sequence[str]],
    products: Sequence[str],
    times: Sequence[str],
    count: int,
    seed: int,
) -> list[tuple[str, str]]:
    """Draw messages with their intents, as many of each intent, no message twice."""
    chance = random.Random(seed)
    drawn: dict[str, str] = {}
    for number in range(count):
        intent = sorted(wordings)[number % len(wordings)]
        while len(drawn) == number:
            text = compose(chance, chance.choice(wordings[intent]), products, times).text
            drawn.setdefault(text, intent)
    return list(drawn.items())


def write(path: Path, content: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for text, intent in content:
            messages = [
                {"role": "user", "content": f"Classify: {text}"},
                {"role": "assistant", "content": intent},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def main(folder: Path) -> None:
    write(folder / "support_chat.jsonl", rows(INTENTS, PRODUCTS, TIMES, TRAIN_ROWS, SEED))
    other = (OTHER_PRODUCTS, OTHER_TIMES, HELD_OUT_ROWS)
    write(folder / "support_chat_test.jsonl", rows(INTENTS, *other, SEED + 1))
    write(folder / "support_chat_wordings.jsonl", rows(OTHER_WORDINGS, *other, SEED + 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
