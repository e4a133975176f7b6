"""What every package may use: files, tables, units, labels and the environment."""
