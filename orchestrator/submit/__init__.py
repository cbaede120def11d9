"""A cluster seen from outside: its job server, a job on it, and whether one would run there."""
