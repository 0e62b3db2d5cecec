"""Share links, in the order of the flow.

codes.py       how a code is drawn, and read however it was typed
clicks.py      the signed click token that a visit hands out
"""
