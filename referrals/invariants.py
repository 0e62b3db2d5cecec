"""What must be true of the forest and its rewards, asked with the money's questions.

17: a campaign's referrals are a forest, each friend under one inviter who shared a link.
18: a reward is a claim made with its own ticket, once per referral and side, within the campaign's
    cap and no further up than the constant.
19: whoever is banned wins nothing: the doors know of each ban, and of nothing else.
"""

from __future__ import annotations

from packets.invariants import Question, QuestionSet

QUESTIONS = QuestionSet(
    app="referrals",
    questions=(
        Question(17, "one_inviter", "each friend has one inviter in a campaign"),
        Question(17, "forest_acyclic", "nobody stands above themselves"),
        Question(17, "referral_parents", "each referral's parent, root and depth fit the inviter"),
        Question(17, "referral_links", "each referral came by a link of its inviter"),
        Question(17, "referral_watched", "each referral is looked at for its rewards"),
        Question(18, "reward_once", "a reward is said once for each referral and side"),
        Question(18, "reward_sides", "each reward is of the person on its side"),
        Question(18, "reward_claims", "each granted reward is the claim that its own ticket made"),
        Question(18, "inviter_cap", "nobody was granted more rewards for inviting than the cap"),
        Question(18, "reward_depth", "rewards reach at most two steps up"),
        Question(19, "bans_at_doors", "exactly the banned people are blocked at the doors"),
    ),
)
