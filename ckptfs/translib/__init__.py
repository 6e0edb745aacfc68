"""Translation libraries: one file per checkpointer, all behind one API."""
