"""Sphinx extension: intersphinx without a network loses links, not the build."""

import logging


def is_news(record):
    """Drop the warning that inventories can't be reached; what it means is plain to see."""
    return "failed to reach any of the inventories" not in str(record.msg)


def setup(app):
    for handler in logging.getLogger("sphinx").handlers:
        handler.filters.insert(0, is_news)
    return {"parallel_read_safe": True}
