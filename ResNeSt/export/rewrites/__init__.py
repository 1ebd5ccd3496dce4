"""Exact rewrites of the network for deployment, one a file; `deploy` applies them."""
