"""The commands of ``ckptfs``, one file each: options, examples, what it writes and reads."""
