"""The test cards, by the id of their payment method."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A test card. It succeeds unless it has a message."""

    effect: str
    code: str = ""
    decline_code: str = ""
    message: str = ""
    is_slow: bool = False


CARDS = {
    "pm_card_visa": Card("Pays."),
    "pm_card_mastercard": Card("Pays."),
    "pm_card_slow": Card("Succeeds after a slow answer from its bank.", is_slow=True),
    "pm_card_visa_chargeDeclined": Card("Is declined.", "card_declined", "generic_decline", "Your card was declined."),
    "pm_card_visa_chargeDeclinedInsufficientFunds": Card(
        "Has insufficient funds.", "card_declined", "insufficient_funds", "Your card has insufficient funds."
    ),
    "pm_card_chargeDeclinedExpiredCard": Card("Has expired.", "expired_card", "expired_card", "Your card has expired."),
    "pm_card_chargeDeclinedIncorrectCvc": Card(
        "Has a wrong security code.", "incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect."
    ),
}
