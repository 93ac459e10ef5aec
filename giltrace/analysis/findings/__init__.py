"""What is wrong with a process: one file a finding, and the verdict."""
