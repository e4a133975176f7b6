"""Every family through its real processor: checkpoints made in code, saved, loaded and used as a user's are."""
