"""The people who work in the admin: how they log in, and how long that holds.

    reauth         the password again before money moves
    second_factor  who needs a code besides the password, and how they get it
    sessions       a session ends when nobody uses it, and after a working day
    forms          the log-in form: password, lock-out, code
    views          the page where a second factor is set up or asked for
    middleware     what holds a half logged-in person back

What each of them may do is the business of the rooms above (`campaign/people.py`).
"""

from __future__ import annotations
