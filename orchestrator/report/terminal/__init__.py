"""The terminal: tables, charts, the live view."""
