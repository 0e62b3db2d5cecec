"""`make bench`: the product's figures as ratios inside one run on one machine.

`rig.py` starts a whole private copy and the do-nothing servers it is measured against; each row
module has what it measures as a function; `__main__.py` runs them and writes the table. Nothing
here is collected by pytest.
"""
