"""Does everybody agree about the money? Finding out only: nothing in here moves any.

files.py        a provider's statement as people download it: CSV in the encodings and words in use
statements.py   one day of one account, fetched or uploaded, taken in whole or not at all
matching.py     its lines against our payouts, both ways; what differs becomes a row
differences.py  what people do about a difference
three_way.py    Redis stock, Postgres and ledger, provider: three books about the same money
"""
