"""What an app's back end reports of its people, and the tickets that rules give for it.

receiving.py   events come in, a thousand at once, each once
rules.py       ticket rules as staff write them
dues.py        the occasions on which a rule gives a ticket
issuing.py     a due occasion becomes a ticket, or is refused by a cap
"""
