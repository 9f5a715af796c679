"""What the tiny model learns to read from: messages to a help desk, and questions about them.

The messages carry no intent. Telling intents apart is left to whoever fine-tunes the model, so
neither that question nor its answers stand anywhere below.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WORDINGS: Final = (
    "Can I pay for {p} by invoice?",
    "Can I quit the contract for {p} early?",
    "Can you reimburse me for {p}?",
    "Do not renew {p}.",
    "Give me back what I paid for {p}.",
    "Has {p} been shipped?",
    "How do I set up {p}?",
    "How do I unsubscribe from {p}?",
    "How long does shipping of {p} take?",
    "How long does the refund for {p} take?",
    "I asked you {t} to end my contract.",
    "I changed my password {t} and cannot log in.",
    "I could not sign in to my account {t}.",
    "I ended my plan {t}, why is it still active?",
    "I forgot my password for {p}.",
    "I need a VAT bill for {p}.",
    "I no longer need {p}, cancel it.",
    "I ordered {p} {t} and the parcel is not here.",
    "I returned {p} {t} and still have no money back.",
    "I sent {p} back {t}, where is my money?",
    "I want my money back for {p}.",
    "I want to stop the plan for {p}.",
    "I was locked out of the account {t}.",
    "I was promised a refund for {p} {t}.",
    "My card was declined for {p}.",
    "My membership should have ended {t}.",
    "My order of {p} is late.",
    "My password for {p} does not work.",
    "My refund for {p} was due {t}.",
    "My user name for {p} is unknown to the login page.",
    "Please cancel my subscription to {p}.",
    "Please cancel the order of {p} before it is sent.",
    "Please return the payment for {p}, it arrived broken.",
    "Please send me the invoice of {p}.",
    "Please take me off the subscription for {p}.",
    "Please update my credit card for {p}.",
    "Sign in failed with an error {t}.",
    "Somebody else signed in to my account {t}.",
    "Stop the renewal of {p}.",
    "The app for {p} freezes.",
    "The battery of {p} is empty after an hour.",
    "The bill that came {t} has a wrong name.",
    "The charge for {p} must be reversed.",
    "The courier lost {p} {t}.",
    "The driver left {p} at another house {t}.",
    "The firmware update of {p} hung {t}.",
    "The invoice for {p} is wrong.",
    "The invoice shows a wrong amount for {p}.",
    "The login for {p} says wrong password.",
    "The login page rejected me {t}.",
    "The package with {p} went to a wrong address {t}.",
    "The reset link for {p} never comes.",
    "The screen of {p} stays black.",
    "The software of {p} is very slow.",
    "The two factor code is not accepted for {p}.",
    "There was an unknown fee on my bill {t}.",
    "Tracking for {p} shows no progress.",
    "Was {p} handed to the courier {t}?",
    "When will {p} be delivered?",
    "Where is my parcel with {p}?",
    "Which fee did I pay {t}?",
    "Why was I charged twice for {p}?",
    "You booked the amount for {p} twice {t}.",
    "{p} crashes when I start it.",
    "{p} does not connect to wifi.",
    "{p} has not arrived yet.",
    "{p} is faulty, pay me back.",
    "{p} makes a strange noise.",
    "{p} never worked, refund me now.",
    "{p} showed error 503 {t}.",
    "{p} stopped working {t}.",
    "{p} turned itself off {t}.",
)
PRODUCTS: Final = (
    "a blue jacket",
    "a bookshelf",
    "a pair of shoes",
    "a red umbrella",
    "a winter coat",
    "my guitar",
    "my headset",
    "my laptop",
    "my tablet",
    "the alarm clock",
    "the camera",
    "the coffee machine",
    "the electric kettle",
    "the exercise bike",
    "the fridge",
    "the garden hose",
    "the headphones",
    "the hiking boots",
    "the keyboard",
    "the lawn mower",
    "the microscope",
    "the monitor",
    "the music box",
    "the office chair",
    "the phone case",
    "the photo album",
    "the printer",
    "the projector",
    "the router",
    "the sewing machine",
    "the smart lamp",
    "the sofa",
    "the tent",
    "the travel bag",
    "the vacuum cleaner",
    "the washing machine",
    "three candles",
    "two concert tickets",
    "two pillows",
    "your video service",
)
TIMES: Final = (
    "a month ago",
    "at noon",
    "during the night",
    "in April",
    "in January",
    "last month",
    "last week",
    "last winter",
    "on Monday",
    "on Saturday",
    "on Thursday",
    "right after lunch",
    "ten minutes ago",
    "the day before",
    "this morning",
    "this week",
    "today",
    "two days ago",
    "two weeks ago",
    "yesterday",
)
GREETINGS: Final = ("", "Hi, ", "Hello, ", "Dear team, ", "Good morning. ", "Urgent: ")
ENDINGS: Final = (
    "",
    " Thanks.",
    " Please help.",
    " Order 4711.",
    " Best regards, Ann.",
    " Waiting for your answer.",
)
NONE: Final = "none"  # the answer where the message does not say


@dataclass(frozen=True, slots=True)
class Message:
    text: str
    greeting: str
    ending: str
    product: str
    time: str


QUESTIONS: Final[Mapping[str, Callable[[Message], str]]] = {
    "Product": lambda message: message.product,
    "When": lambda message: message.time,
    "Greeting": lambda message: message.greeting.strip(" ,.:") or NONE,
    "Ending": lambda message: message.ending.strip(" .") or NONE,
    "First": lambda message: message.text.split()[0],
    "Last": lambda message: message.text.split()[-1],
    "Echo": lambda message: message.text,
}


def compose(
    chance: random.Random, wording: str, products: Sequence[str], times: Sequence[str]
) -> Message:
    """Put a wording's slots and what stands around it into words."""
    greeting, ending = chance.choice(GREETINGS), chance.choice(ENDINGS)
    product = chance.choice(products) if "{p}" in wording else NONE
    time = chance.choice(times) if "{t}" in wording else NONE
    body = wording.format(p=product, t=time)
    text = f"{greeting}{body[0].upper()}{body[1:]}{ending}"
    return Message(text, greeting, ending, product, time)


def exchanges(chance: random.Random, count: int) -> list[tuple[str, str]]:
    """Draw what a user asks of a message, and the answer."""
    drawn = []
    for _ in range(count):
        message = compose(chance, chance.choice(WORDINGS), PRODUCTS, TIMES)
        question = chance.choice(tuple(QUESTIONS))
        drawn.append((f"{question}: {message.text}", QUESTIONS[question](message)))
    return drawn
