"""The share page: what a friend sees who opens a link, on a phone, without an account here.

pages.py       the page's own frame: language, headers, status
pictures.py    the link as a QR code and as a poster
views.py       the addresses
"""
