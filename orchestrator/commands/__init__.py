"""What the verbs do, a module each, and the followers of a run: mirror and webhook."""
