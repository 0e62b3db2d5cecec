"""What SQL says of a forest is what networkx says of it."""

from __future__ import annotations

import random

import networkx as nx
import pytest

from campaign.models import CampaignGrowth
from referrals.forest import selectors
from referrals.forest.binding import top_of
from referrals.models import Referral
from tests import world
from tests.referrals.stage import app_of, bind, link_of, sharing

pytestmark = pytest.mark.django_db(transaction=True)


def name_of(number: int) -> str:
    return f"p{number}"


def digests(growth: CampaignGrowth, people: int) -> dict[int, bytes]:
    app = app_of(growth.campaign)
    return {number: world.person(name_of(number), app).participant for number in range(people)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reads_of_random_trees_equal_networkx(seed: int) -> None:
    """Edges come in any order, so that tops with trees of their own are bound too."""
    growth, people, dice = sharing(), 24, random.Random(seed)
    known = digests(growth, people)
    parents = {friend: dice.randrange(friend) for friend in range(1, people) if dice.random() < 0.9}
    for friend, inviter in dice.sample(sorted(parents.items()), len(parents)):
        bind(growth, name_of(friend), name_of(inviter))
    tree = nx.DiGraph([(inviter, friend) for friend, inviter in parents.items()])
    tree.add_nodes_from(range(people))

    for number, person in known.items():
        above = nx.shortest_path_length(tree, target=number)
        [top] = [one for one in above if tree.in_degree(one) == 0]
        line = sorted((steps, one) for one, steps in above.items() if steps)
        assert selectors.ancestors(growth.campaign.pk, person) == [known[one] for _, one in line]
        found = top_of(growth.campaign.pk, person)
        assert (found.person, found.depth) == (known[top], above[top])
        below = nx.single_source_shortest_path_length(tree, number).values()
        levels = {
            level.depth: level.people for level in selectors.levels(growth.campaign.pk, person)
        }
        assert levels == {steps: list(below).count(steps) for steps in set(below) - {0}}


def test_a_line_of_fifty_is_walked_in_one_query(django_assert_num_queries: object) -> None:
    growth = sharing()
    app = app_of(growth.campaign)
    known, link = digests(growth, 51), link_of(growth, name_of(0))
    Referral.objects.bulk_create(
        Referral(
            campaign=growth.campaign,
            client_app_id=app,
            invitee=known[number],
            inviter=known[number - 1],
            link=link,
            root=known[0],
            depth=number,
            source="code",
        )
        for number in range(1, 51)
    )

    with django_assert_num_queries(1):  # type: ignore[operator]
        above = selectors.ancestors(growth.campaign.pk, known[50])

    assert above == [known[number] for number in range(49, -1, -1)]
