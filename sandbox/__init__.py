"""The outside world of a shop, for development and tests: real protocols, a durable ledger, faults on demand.

It stands for other companies, so it shares no code with the shop and can be taken elsewhere as it is.
"""
