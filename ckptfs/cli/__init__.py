"""The commands: they read, write and poll the files of a mount, nothing else."""
