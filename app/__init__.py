"""Runstream: LangGraph graphs over HTTP, streamed from one durable log."""
