"""What tools/bench is made of: programs to measure, the peers, the tables."""
