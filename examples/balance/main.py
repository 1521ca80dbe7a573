"""Balances of accounts. Each function here can be called over HTTP."""

import korelogger

import ledger


def check(account):
    """The balance of one account, in cents."""
    print(f"checking account {account}")
    korelogger.info("balance asked for", account=account)
    return {"account": account, "balance": ledger.balance(account)}


def total():
    """The sum over all accounts, in cents."""
    print(f"adding up {len(ledger.BALANCES)} accounts")
    return {"total": sum(ledger.BALANCES.values())}
