"""Loaded before any test: the engine is imported before LangGraph is, as in the server (app/engine/__init__.py)."""

import app.engine  # noqa: F401  # strict msgpack is decided when LangGraph is imported first
