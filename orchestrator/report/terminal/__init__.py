"""What people read on the terminal: tables, charts, the live view."""
