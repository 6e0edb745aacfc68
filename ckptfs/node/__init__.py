"""One machine: supervisors, isolation, freezer, files of the job, and the agent."""
