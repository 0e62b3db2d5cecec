"""The flow's third driver: a seeded scheduler that runs many claims against every fault we know."""
