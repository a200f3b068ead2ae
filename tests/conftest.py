"""One conftest for all tests: the fixtures live in tests/netns_fixtures."""

pytest_plugins = ["tests.netns_fixtures.plugin"]
