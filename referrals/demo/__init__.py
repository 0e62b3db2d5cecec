"""The demo's own app: what stands behind the button of a share page while nobody has a real app.

app.py      who the demo's people are, and what the app does for them
views.py    its pages: the friend's, and the inviter's
forest.py   people who have come before, and a farm among them

Nothing here answers unless `settings.DEMO_APP` is on, and the settings refuse that anywhere but on
one's own machine. It speaks for the demo's client app only.
"""
