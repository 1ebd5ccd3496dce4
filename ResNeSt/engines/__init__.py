"""Engines: one small file per runtime, each with the same few methods; `opening` says which opens what."""
