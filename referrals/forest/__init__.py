"""The referral forest: who came through whom.

binding.py     one edge, at most once, never a circle
"""
