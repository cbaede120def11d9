"""Everything that touches Ray: a trial's Train run, the Tune search over trials, the live view."""
