"""The accounts there are."""

import korelogger

BALANCES = {"alice": 125_00, "bob": 17_50, "carol": -3_99}


def balance(account):
    if account == "closed":
        korelogger.error("account is closed", account=account)
        raise ValueError(f"account {account} is not active")
    cents = BALANCES.get(account, 0)
    if cents < 0:
        korelogger.warning("account is overdrawn", account=account, balance=cents)
    return cents
