"""Linear probes on hidden states, and the intermediate results that they look for."""
