"""Translation libraries: one kernel checkpointer each behind `translib.api.Translib`."""
