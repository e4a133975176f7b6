"""What methods are built on: the base classes, what they see, how they are named, put together and kept in files."""
