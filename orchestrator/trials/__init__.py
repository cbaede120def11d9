"""One trial, with torch and without Ray: its chain of stages, adopted or trained, judged, committed or restarted."""
