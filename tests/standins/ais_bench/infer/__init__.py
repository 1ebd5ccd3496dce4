"""The client without its command line."""
