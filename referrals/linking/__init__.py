"""Share links, in the order of the flow.

codes.py         how a code is drawn, and read however it was typed
links.py         a person's link into one channel, and when they may share
spread.py        how a campaign spreads now, as a process remembers it for two seconds
switching.py     a channel's vehicle off and on, by staff
agents.py        who looks: a person, or a program that leaves no trace
places.py        where they look from, as keyed hashes
misses.py        who tries codes has to wait
visits.py        a person's opening, counted once
clicks.py        the signed click token that a visit hands out
destinations.py  where the page's button may lead
complaints.py    who is bothered, and what many complaints do by themselves
selectors.py     what links have led to
"""
