"""Tests, and what they share: ``models`` to sample, ``problems`` with exact laws, ``runs`` and ``tables``."""
