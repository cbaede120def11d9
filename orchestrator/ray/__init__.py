"""Everything of Ray: a Ray of one's own or a joined one, a trial as a Train run, the search in Tune."""
