"""What a marketer wants to know of a campaign's growth.

reading.py    rows of Postgres as arrays, in short statements by key ranges
crowd.py      a campaign's people: when they came, through whom, what they won
spread.py     funnel, K of closed cohorts, cycle times, cascades
seen.py       who came back on which day, and which chat groups fell silent
money.py      what it costs, per person and per person who stays; the burn
report.py     all of it for one campaign at one moment
snapshots.py  the rows that pages read, and when they are made anew

Every figure's denominator is said where it is counted and in docs/growth.md. numpy is imported by
whoever counts, never by the pages.
"""
